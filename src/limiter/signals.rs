//! Signals of rules that adapt: how many requests were admitted, and how those that have ended
//! fared. Counted per thread in memory, taken once a second; no request writes anything else.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::adaptive::Second;
use crate::policy::Rule;
use crate::telemetry::sharded::PerThread;

/// The status codes of a request whose upstream failed.
const ERRORS: std::ops::RangeInclusive<u64> = 500..=599;

/// The status code of a request whose client has left before there was an answer.
const LEFT: u64 = 0;

/// The end of a request, as its caller reports it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Fared {
    /// The HTTP status code; 0: the client has left before there was one.
    pub code: Option<u64>,
    /// The time of the upstream in milliseconds.
    pub millis: Option<u64>,
    /// The number of times that an upstream was tried.
    pub attempts: Option<u64>,
    /// The bytes of it that were sent to an upstream.
    pub sent: Option<u64>,
}

impl Fared {
    /// True if no upstream has seen the request, so that it can have cost nothing.
    pub fn never_ran(&self) -> bool {
        self.attempts == Some(0) || self.sent == Some(0)
    }

    /// True if it says how the request fared.
    pub const fn says_something(&self) -> bool {
        self.code.is_some() || self.millis.is_some()
    }
}

/// The signal of one rule.
#[derive(Debug)]
pub struct RuleSignal {
    /// The time that 95 % of its requests may take.
    target: Mutex<Option<Duration>>,
    seconds: PerThread<Mutex<Second>>,
}

impl RuleSignal {
    fn new() -> Self {
        Self { target: Mutex::default(), seconds: PerThread::new(Mutex::default) }
    }

    /// A request was admitted.
    pub fn admitted(&self) {
        self.seconds.own().lock().admitted += 1;
    }

    /// An admitted request has ended; it was held for `held`.
    ///
    /// A request that no upstream has seen says nothing of it, nor does one whose client left
    /// within the time that requests may take. A client that left later has waited too long.
    pub fn ended(&self, fared: Fared, held: Duration) {
        let target = *self.target.lock();
        let mut second = self.seconds.own().lock();
        let has_left = fared.code == Some(LEFT) && fared.millis.is_none();
        if fared.attempts == Some(0) || (has_left && target.is_none_or(|target| held <= target)) {
            second.left += 1;
            return;
        }
        let time = fared.millis.map(Duration::from_millis).or(has_left.then_some(held));
        let is_error = fared.code.is_some_and(|code| ERRORS.contains(&code));
        second.end(1, time, is_error, target);
    }

    /// Takes what was counted since it was taken before.
    fn take(&self) -> Second {
        let mut all = Second::default();
        for shard in self.seconds.iter() {
            all.merge(&std::mem::take(&mut *shard.lock()));
        }
        all
    }
}

/// The signals of all rules that adapt, by the numbers of the rules.
#[derive(Debug, Default)]
pub struct Signals {
    rules: Mutex<HashMap<u32, Arc<RuleSignal>>>,
}

impl Signals {
    /// The signal of a rule, the same in every version of the policies; none: it does not adapt.
    pub(super) fn of(&self, rule: &Rule) -> Option<(u32, Arc<RuleSignal>)> {
        let terms = rule.adaptive.as_ref()?;
        let number = rule.number();
        let mut rules = self.rules.lock();
        let signal = rules.entry(number).or_insert_with(|| Arc::new(RuleSignal::new()));
        *signal.target.lock() = terms.p95;
        Some((number, Arc::clone(signal)))
    }

    /// Takes what was counted of each rule since it was taken before.
    pub fn take(&self) -> Vec<(u32, Second)> {
        let rules: Vec<(u32, Arc<RuleSignal>)> = self
            .rules
            .lock()
            .iter()
            .map(|(number, signal)| (*number, Arc::clone(signal)))
            .collect();
        rules.into_iter().map(|(number, signal)| (number, signal.take())).collect()
    }

    /// Drops the signals that no rule has.
    pub(super) fn drop_unused(&self) {
        self.rules.lock().retain(|_, signal| Arc::strong_count(signal) > 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn end_is_slow_failed_or_says_nothing() {
        let signal = RuleSignal::new();
        *signal.target.lock() = Some(Duration::from_millis(300));
        let end = |code, millis, attempts, held| {
            let fared = Fared { code, millis, attempts, sent: None };
            signal.ended(fared, Duration::from_millis(held));
            let Second { ended, errors, slow, left, .. } = signal.take();
            (ended, errors, slow, left)
        };
        let ok = Some(200);
        assert_eq!(end(ok, Some(300), Some(1), 9_000), (1, 0, 0, 0), "of the upstream alone");
        assert_eq!(end(ok, Some(301), Some(1), 9_000), (1, 0, 1, 0));
        assert_eq!(end(ok, None, None, 9_000), (1, 0, 0, 0), "a stream may take long");
        assert_eq!(end(Some(429), Some(1), None, 1), (1, 0, 0, 0));
        assert_eq!(end(Some(503), Some(9), Some(1), 9), (1, 1, 0, 0));
        assert_eq!(end(Some(504), None, Some(1), 9), (1, 1, 1, 0), "without a time it was slow");
        assert_eq!(end(ok, Some(1), Some(0), 9), (0, 0, 0, 1), "of no upstream");
        assert_eq!(end(Some(LEFT), None, Some(1), 300), (0, 0, 0, 1), "too early to say");
        assert_eq!(end(Some(LEFT), None, Some(1), 301), (1, 0, 1, 0), "waited for too long");
        signal.admitted();
        assert_eq!((signal.take().admitted, signal.take().admitted), (1, 0));
    }
}
