//! The time by which a store answers, and what it may take beyond that through no fault of its own.

use std::time::Duration;

use tokio::time::Instant;

/// A timer of the runtime may fire this late on an idle machine. More is lateness of this process.
const TIMER_SLACK: Duration = Duration::from_millis(2);

/// The time for an answer that has arrived to be read, after a delay of this process.
const CATCH_UP: Duration = Duration::from_millis(2);

/// The longest extension of a deadline of a caller that has none of its own.
const MAX_EXTENSION: Duration = Duration::from_millis(100);

/// The deadline of a decision. Copied with each call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Deadline {
    due: Instant,
    /// The time that the store gets.
    span: Duration,
    /// The latest time to which the deadline may be extended.
    latest: Instant,
}

impl Deadline {
    /// The deadline of a call that began at `start`: `store` later, or `patience` later if the
    /// caller waits no longer. It is never extended beyond `patience`.
    pub fn after(start: Instant, store: Duration, patience: Option<Duration>) -> Self {
        let span = patience.map_or(store, |patience| store.min(patience));
        let due = start + span;
        let latest = patience.map_or(due + MAX_EXTENSION, |patience| start + patience);
        Self { due, span, latest }
    }

    /// The same for a store that is asked at `now`: what passed before was no time of the store.
    #[must_use]
    pub fn asked(self, now: Instant) -> Self {
        Self { due: self.due.max((now + self.span).min(self.latest)), ..self }
    }

    /// The time by which the answer is due.
    pub const fn due(self) -> Instant {
        self.due
    }

    /// The deadline of a call, seen at `now`, that this process has held up itself: it was busy or
    /// descheduled when the deadline passed, so the answer may be there and not be read yet. Redis
    /// may share the machine, so it gets as much time again. `None` if the process was in time, or
    /// nothing is left to extend.
    #[must_use]
    pub fn extended(self, now: Instant) -> Option<Self> {
        let late = now.saturating_duration_since(self.due);
        let due = (now + late + CATCH_UP).min(self.latest);
        (late > TIMER_SLACK && due > now).then_some(Self { due, ..self })
    }
}

/// A deadline that is never extended.
impl From<Instant> for Deadline {
    fn from(due: Instant) -> Self {
        Self { due, span: Duration::ZERO, latest: due }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn only_own_lateness_extends_a_deadline() {
        let start = Instant::now();
        let deadline = Deadline::after(start, ms(10), None);
        assert_eq!(deadline.due(), start + ms(10));
        assert_eq!(deadline.extended(start + ms(12)), None, "a timer may be so late");
        let extended = deadline.extended(start + ms(14)).unwrap();
        assert_eq!(extended.due(), start + ms(20));
        assert_eq!(extended.extended(start + ms(21)), None, "in time");
        let again = extended.extended(start + ms(70)).unwrap();
        assert_eq!(again.due(), start + ms(110), "late again, to the latest time");
        assert_eq!(again.extended(start + ms(120)), None);
    }

    #[test]
    fn time_before_the_store_is_asked_is_not_the_stores() {
        let start = Instant::now();
        let asked =
            |patience| Deadline::after(start, ms(10), patience).asked(start + ms(9)).due() - start;
        assert_eq!(asked(None), ms(19));
        assert_eq!(asked(Some(ms(16))), ms(16));
        assert_eq!(Deadline::from(start).asked(start + ms(1)).due(), start);
    }

    #[test]
    fn caller_that_waits_no_longer_is_answered_in_time() {
        let start = Instant::now();
        let deadline = Deadline::after(start, ms(10), Some(ms(16)));
        assert_eq!(deadline.extended(start + ms(15)).unwrap().due(), start + ms(16));
        let hurried = Deadline::after(start, ms(10), Some(ms(5)));
        assert_eq!((hurried.due(), hurried.extended(start + ms(9))), (start + ms(5), None));
        assert_eq!(Deadline::from(start).extended(start + ms(5)), None);
    }
}
