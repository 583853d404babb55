//! The choice to look before charging, in requests over several servers: while many of them were
//! charged in vain.

use std::time::Duration;

use tokio::time::Instant;

/// Counts are reduced by a fifth after each of these steps, so they are of about the last half
/// second.
const STEP: Duration = Duration::from_millis(100);
const KEPT: f64 = 0.8;

/// So few requests count as so many.
const LEAST: f64 = 20.0;

/// The share of requests whose charges may be given back before the next ones look first.
const SHARE: f64 = 0.05;

/// Counts of recent requests.
#[derive(Debug, Default)]
pub(crate) struct Shy {
    since: Option<Instant>,
    requests: f64,
    given_back: f64,
}

impl Shy {
    /// Counts a request.
    pub(crate) fn note(&mut self, given_back: bool, now: Instant) {
        self.fade(now);
        self.requests += 1.0;
        self.given_back += f64::from(u8::from(given_back));
    }

    /// True if the next request is to look first.
    pub(crate) fn is_shy(&mut self, now: Instant) -> bool {
        self.fade(now);
        self.given_back > SHARE * self.requests.max(LEAST)
    }

    fn fade(&mut self, now: Instant) {
        let since = self.since.get_or_insert(now);
        let steps = now.saturating_duration_since(*since).as_micros() / STEP.as_micros();
        let steps = i32::try_from(steps).unwrap_or(i32::MAX);
        if steps > 0 {
            let kept = KEPT.powi(steps);
            (self.requests, self.given_back) = (self.requests * kept, self.given_back * kept);
            *since = if steps < 1_000 { *since + STEP * steps.unsigned_abs() } else { now };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_charges_in_vain_make_shy_until_they_fade() {
        let (mut shy, start) = (Shy::default(), Instant::now());
        assert!(!shy.is_shy(start));
        shy.note(true, start);
        assert!(!shy.is_shy(start), "one of a few");
        shy.note(true, start);
        assert!(shy.is_shy(start));
        assert!(!shy.is_shy(start + STEP * 4), "it is over");
        let later = start + STEP * 20;
        (0..1_000).for_each(|i| shy.note(i % 25 == 0, later));
        assert!(!shy.is_shy(later), "one in 25");
        (0..1_000).for_each(|i| shy.note(i % 15 == 0, later));
        assert!(shy.is_shy(later), "more than one in 20");
        assert!(!shy.is_shy(later + STEP * 100_000));
    }
}
