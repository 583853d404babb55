//! The time after the start of a stream in which no domain is removed. Pure: time is an argument.
//!
//! A control plane that was restarted knows its gateways one after the other, so its first
//! responses may lack domains that exist. Their limits stay until it has been quiet for a moment.

use std::time::Duration;

use tokio::time::Instant;

/// Without another response for this long, the last one is complete.
const QUIET: Duration = Duration::from_secs(1);

/// The longest time in which removals wait, from the first response on.
const MAX_GRACE: Duration = Duration::from_secs(5);

/// The grace of a stream.
#[derive(Debug, Default)]
pub(super) struct Grace {
    /// The first and the last response of the stream.
    responses: Option<(Instant, Instant)>,
    over: bool,
}

impl Grace {
    /// Notes a response.
    pub(super) fn note(&mut self, now: Instant) {
        let first = self.responses.map_or(now, |(first, _)| first);
        self.responses = Some((first, now));
        self.over |= now >= first + MAX_GRACE;
    }

    /// The time at which it ends; none: it is over, or has not begun.
    pub(super) fn ends(&self) -> Option<Instant> {
        let (first, last) = self.responses.filter(|_| !self.over)?;
        Some((last + QUIET).min(first + MAX_GRACE))
    }

    /// Ends it: removals take effect.
    pub(super) const fn end(&mut self) {
        self.over = true;
    }

    /// True while removals wait.
    pub(super) const fn holds(&self) -> bool {
        !self.over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn removals_wait_for_a_quiet_second_and_five_at_most() {
        let begun = Instant::now();
        let at = |millis| begun + Duration::from_millis(millis);
        let mut grace = Grace::default();
        assert!(grace.holds() && grace.ends().is_none());
        grace.note(at(0));
        assert_eq!(grace.ends(), Some(at(1_000)));
        for millis in (300..=4_800).step_by(300) {
            grace.note(at(millis));
            assert_eq!(grace.ends(), Some(at((millis + 1_000).min(5_000))));
        }
        grace.end();
        assert!(!grace.holds() && grace.ends().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn response_after_the_longest_grace_ends_it() {
        let begun = Instant::now();
        let mut grace = Grace::default();
        grace.note(begun);
        grace.note(begun + MAX_GRACE);
        assert!(!grace.holds());
    }
}
