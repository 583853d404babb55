//! The time by which a store answers, and what it may take beyond that through no fault of its own.

use std::sync::LazyLock;
use std::time::Duration;

use tokio::time::Instant;

/// A timer of the runtime may fire this late on an idle machine. More is lateness of this process.
const TIMER_SLACK: Duration = Duration::from_millis(2);

/// The time for an answer that has arrived to be read, after a delay of this process.
const CATCH_UP: Duration = Duration::from_millis(2);

/// The longest extension of a deadline of a caller that has none of its own.
const MAX_EXTENSION: Duration = Duration::from_millis(100);

/// The time that a store gets for an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Allowance {
    /// The time that it may take.
    pub time: Duration,
    /// The store runs on this machine. It gets as much time again, once a call, while tasks wait
    /// for the cores: then its silence is no sign of an outage.
    pub same_machine: bool,
}

/// The allowance of a store on another machine.
impl From<Duration> for Allowance {
    fn from(time: Duration) -> Self {
        Self { time, same_machine: false }
    }
}

/// The deadline of a decision. Copied with each call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Deadline {
    due: Instant,
    /// The time that the store gets.
    span: Duration,
    /// The latest time to which the deadline may be extended.
    latest: Instant,
    /// It may be extended because the cores of this machine are busy.
    same_machine: bool,
    /// It is that of a store that was asked.
    is_asked: bool,
}

impl Deadline {
    /// The deadline of a call that began at `start`: the time of `store` later, or `patience`
    /// later if the caller waits no longer. It is never extended beyond `patience`.
    pub fn after(start: Instant, store: impl Into<Allowance>, patience: Option<Duration>) -> Self {
        let Allowance { time, same_machine } = store.into();
        let span = patience.map_or(time, |patience| time.min(patience));
        let due = start + span;
        let latest = patience.map_or(due + MAX_EXTENSION, |patience| start + patience);
        Self { due, span, latest, same_machine, is_asked: false }
    }

    /// The same for a store that is asked at `now`: what passed before was no time of the store.
    #[must_use]
    pub fn asked(self, now: Instant) -> Self {
        let due = self.due.max((now + self.span).min(self.latest));
        Self { due, is_asked: true, ..self }
    }

    /// The same for a store that is asked now. Reads no clock if a layer before the store did.
    #[must_use]
    pub fn asked_now(self) -> Self {
        if self.is_asked { self } else { self.asked(Instant::now()) }
    }

    /// The time by which the answer is due.
    pub const fn due(self) -> Instant {
        self.due
    }

    /// The deadline of a call, seen at `now`, that this machine has held up itself. `None` if it
    /// has not, or nothing is left to extend.
    ///
    /// Either this process was busy or descheduled when the deadline passed: the answer may be
    /// there and not be read yet. Redis may share the machine, so it gets as much time again. Or
    /// Redis does share it, and now waits for a core.
    #[must_use]
    pub fn extended(self, now: Instant) -> Option<Self> {
        self.extended_while(now, cores_are_busy)
    }

    fn extended_while(self, now: Instant, busy: impl Fn() -> bool) -> Option<Self> {
        let late = now.saturating_duration_since(self.due);
        let extended = if late > TIMER_SLACK {
            Self { due: (now + late + CATCH_UP).min(self.latest), ..self }
        } else if self.same_machine && now >= self.due && busy() {
            let due = (self.due + self.span).min(self.latest);
            Self { due, same_machine: false, ..self }
        } else {
            return None;
        };
        (extended.due > now).then_some(extended)
    }
}

/// A deadline that is never extended.
impl From<Instant> for Deadline {
    fn from(due: Instant) -> Self {
        let (span, latest) = (Duration::ZERO, due);
        Self { due, span, latest, same_machine: false, is_asked: false }
    }
}

/// True if more tasks of this machine are running, or wait to, than it has cores. Read only when a
/// deadline has passed. The file is made in memory, so reading it does not block.
///
/// Source: proc(5), the fourth field of /proc/loadavg, and /proc/stat. Both count the whole
/// machine, in a container too. Other systems have neither: never busy.
fn cores_are_busy() -> bool {
    static CORES: LazyLock<usize> =
        LazyLock::new(|| std::fs::read_to_string("/proc/stat").map_or(usize::MAX, |s| cores(&s)));
    std::fs::read_to_string("/proc/loadavg").is_ok_and(|load| runnable(&load) > Some(*CORES))
}

/// The number of cores in the text of /proc/stat: a line for each, after one for all.
fn cores(stat: &str) -> usize {
    stat.lines().filter(|line| line.starts_with("cpu")).count().saturating_sub(1)
}

/// The number of runnable tasks in the text of /proc/loadavg.
fn runnable(load: &str) -> Option<usize> {
    load.split_whitespace().nth(3)?.split_once('/')?.0.parse().ok()
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
    fn store_on_a_busy_machine_gets_its_time_again_once() {
        let start = Instant::now();
        let beside = Allowance { time: ms(10), same_machine: true };
        let deadline = Deadline::after(start, beside, None);
        assert_eq!(deadline.extended_while(start + ms(9), || true), None, "it is not over");
        assert_eq!(deadline.extended_while(start + ms(10), || false), None, "an outage");
        let extended = deadline.extended_while(start + ms(11), || true).unwrap();
        assert_eq!(extended.due(), start + ms(20));
        assert_eq!(extended.extended_while(start + ms(20), || true), None, "once");
        let hurried = Deadline::after(start, beside, Some(ms(16)));
        let extended = hurried.extended_while(start + ms(10), || true).unwrap();
        assert_eq!(extended.due(), start + ms(16));
        let elsewhere = Deadline::after(start, ms(10), None);
        assert_eq!(elsewhere.extended_while(start + ms(10), || true), None);
    }

    #[test]
    fn runnable_tasks_and_cores_are_read() {
        assert_eq!(cores("cpu  9 0 3\ncpu0 4 0 1\ncpu1 5 0 2\nintr 7\n"), 2);
        assert_eq!(runnable("0.42 2.39 3.06 5/312 20153\n"), Some(5));
        assert_eq!((runnable(""), runnable("0.42 2.39 3.06 x/1 1")), (None, None));
    }

    #[test]
    fn time_before_the_store_is_asked_is_not_the_stores() {
        let start = Instant::now();
        let asked =
            |patience| Deadline::after(start, ms(10), patience).asked(start + ms(9)).due() - start;
        assert_eq!(asked(None), ms(19));
        assert_eq!(asked(Some(ms(16))), ms(16));
        assert_eq!(Deadline::from(start).asked(start + ms(1)).due(), start);
        let later = Deadline::after(start + ms(60_000), ms(10), None);
        assert_eq!(later.asked(start).asked_now(), later.asked(start));
        assert_ne!(later.asked_now(), later);
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
