//! Back-off between streams. Pure: chance is an argument.

use std::time::Duration;

use super::settings::BackoffSettings;

/// The longest wait after a stream that the control plane has ended in order, as it does in a
/// roll-out: another of its replicas takes over at once.
const AFTER_CLEAN_END: Duration = Duration::from_secs(1);

/// Waits that grow from attempt to attempt.
#[derive(Debug)]
pub(super) struct Backoff {
    settings: BackoffSettings,
    next: Duration,
}

impl Backoff {
    /// Starts at the initial wait.
    pub(super) const fn new(settings: BackoffSettings) -> Self {
        let next = settings.initial;
        Self { settings, next }
    }

    /// The wait after a failure. `chance` is from 0 to 1 and spreads it by half in both directions.
    pub(super) fn failed(&mut self, chance: f64) -> Duration {
        let BackoffSettings { max, factor, jitter, .. } = self.settings;
        let wait = self.next.min(max);
        // A product beyond any duration is beyond the maximum.
        let grown = wait.as_secs_f64() * factor;
        self.next = Duration::try_from_secs_f64(grown).map_or(max, |grown| grown.min(max));
        if jitter { wait.mul_f64(0.5 + chance.clamp(0.0, 1.0)) } else { wait }
    }

    /// The wait after a stream that brought a response and was ended in order.
    pub(super) fn ended(&self, chance: f64) -> Duration {
        let most = self.settings.initial.min(AFTER_CLEAN_END);
        if self.settings.jitter { most.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0) } else { most }
    }

    /// Returns to the initial wait: a response came.
    pub(super) const fn reset(&mut self) {
        self.next = self.settings.initial;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backoff(jitter: bool) -> Backoff {
        Backoff::new(BackoffSettings { jitter, ..BackoffSettings::default() })
    }

    fn seconds(mut backoff: Backoff, times: usize, chance: f64) -> Vec<f64> {
        (0..times).map(|_| backoff.failed(chance).as_secs_f64()).collect()
    }

    #[test]
    fn waits_double_from_a_second_to_a_minute() {
        let expected = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0];
        assert_eq!(seconds(backoff(false), 8, 0.9), expected);
        assert_eq!(seconds(backoff(true), 8, 0.5), expected);
    }

    #[test]
    fn jitter_spreads_a_wait_by_half() {
        assert_eq!(seconds(backoff(true), 2, 0.0), [0.5, 1.0]);
        assert_eq!(seconds(backoff(true), 2, 1.0), [1.5, 3.0]);
    }

    #[test]
    fn response_returns_to_the_initial_wait() {
        let mut backoff = backoff(false);
        for _ in 0..5 {
            backoff.failed(0.0);
        }
        backoff.reset();
        assert_eq!(backoff.failed(0.0), Duration::from_secs(1));
    }

    #[test]
    fn clean_end_is_followed_within_a_second() {
        let mut backoff = backoff(true);
        backoff.failed(0.0);
        let waits = [0.0, 1.0].map(|chance| backoff.ended(chance));
        assert_eq!(waits, [Duration::from_millis(500), Duration::from_secs(1)]);
    }

    #[test]
    fn huge_factor_is_no_overflow() {
        let settings = BackoffSettings { factor: f64::MAX, ..BackoffSettings::default() };
        assert_eq!(seconds(Backoff::new(settings), 3, 0.5), [1.0, 60.0, 60.0]);
    }
}
