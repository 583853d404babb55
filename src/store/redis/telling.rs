//! The part of a connection that tells Redis what was charged without it.
//!
//! One connection of the process tells at a time, and one call is under way. `batch.rs` sends the
//! calls; [`Teller`] knows what is in them.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::script::MAX_AMENDMENTS;
use crate::domain::Amendment;
use crate::store::recovery::{Recovery, Teller};

/// The replicas begin to tell Redis what it does not know within this time.
const SPREAD: Duration = Duration::from_millis(100);

/// The telling of one connection.
pub(super) struct Telling {
    recovery: Arc<Recovery>,
    teller: Option<Arc<dyn Teller>>,
    /// The time of the next call.
    at: Option<Instant>,
    /// The charges in the call under way.
    sent: Vec<Amendment>,
}

impl Telling {
    pub(super) const fn new(recovery: Arc<Recovery>, teller: Option<Arc<dyn Teller>>) -> Self {
        Self { recovery, teller, at: None, sent: Vec::new() }
    }

    /// The recovery of the process.
    pub(super) const fn recovery(&self) -> &Arc<Recovery> {
        &self.recovery
    }

    /// The time at which [`due`](Self::due) has something to do.
    pub(super) const fn alarm(&self) -> Option<Instant> {
        self.at
    }

    /// Plans a call if something is untold, not at the same moment as all other replicas.
    pub(super) fn plan(&mut self, now: Instant) {
        if self.at.is_none() && self.recovery.untold() > 0 {
            let spread = RandomState::new().hash_one(0) % SPREAD.as_micros() as u64;
            self.at = Some(now + Duration::from_micros(spread));
        }
    }

    /// The charges to tell at `now`, which are under way from then on; empty if there are none. A
    /// connection that is not `fit` drops its plan, and makes another one when it is.
    pub(super) fn due(&mut self, now: Instant, fit: bool) -> &[Amendment] {
        if self.at.is_none_or(|at| now < at) {
            return &[];
        }
        self.at = None;
        let Some(teller) = self.teller.as_ref().filter(|_| fit) else { return &[] };
        if !self.recovery.begin_telling() {
            // Another connection does it. If that is lost, this one goes on.
            self.at = Some(now + SPREAD);
            return &[];
        }
        self.sent = teller.take(MAX_AMENDMENTS);
        if self.sent.is_empty() {
            self.recovery.end_telling();
        }
        &self.sent
    }

    /// Redis has answered the call under way; `applied` is what it charged. Plans the next one,
    /// unless Redis has refused.
    pub(super) fn answered(&mut self, applied: Option<&[u64]>, now: Instant) {
        self.end(applied);
        if applied.is_some() && self.recovery.untold() > 0 {
            self.at = Some(now);
        }
    }

    /// The connection is lost. The call under way may have been executed.
    pub(super) fn lost(&mut self) {
        self.at = None;
        self.end(None);
    }

    fn end(&mut self, applied: Option<&[u64]>) {
        let sent = std::mem::take(&mut self.sent);
        if let Some(teller) = self.teller.as_ref().filter(|_| !sent.is_empty()) {
            self.recovery.end_telling();
            teller.told(&sent, applied);
        }
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;
    use crate::domain::{Algorithm, Change, Charge, Key, Limit, Told};

    /// Has so many counters to tell.
    struct Counters {
        left: Mutex<usize>,
        recovery: Arc<Recovery>,
        applied: Mutex<Vec<Option<u64>>>,
    }

    impl Teller for Counters {
        fn take(&self, max: usize) -> Vec<Amendment> {
            let mut left = self.left.lock();
            let taken = max.min(*left);
            *left -= taken;
            let limit = Limit::new(
                1,
                Duration::from_secs(1),
                Algorithm::SlidingWindow { slots: 1 },
                Charge::Admitted,
            );
            let change = Change::Tell(Told::Sliding { hits: 1, age: 0 });
            let key = Key::new(&b"k"[..]);
            vec![Amendment { key, limit: limit.unwrap(), change }; taken]
        }

        fn told(&self, amendments: &[Amendment], applied: Option<&[u64]>) {
            self.applied.lock().push(applied.map(|applied| applied.iter().sum()));
            self.recovery.remove(amendments.len());
        }
    }

    fn telling(left: usize) -> (Telling, Arc<Counters>) {
        let recovery = Arc::<Recovery>::default();
        (0..left).for_each(|_| recovery.add());
        let counters = Arc::new(Counters {
            left: Mutex::new(left),
            recovery: Arc::clone(&recovery),
            applied: Mutex::default(),
        });
        (Telling::new(recovery, Some(counters.clone())), counters)
    }

    #[test]
    fn everything_is_told_in_calls_of_64() {
        let (mut telling, counters) = telling(100);
        let now = Instant::now() + SPREAD;
        assert!(telling.due(now, true).is_empty(), "nothing is planned");
        telling.plan(now - SPREAD);
        assert!(telling.due(now, false).is_empty(), "not fit");
        assert_eq!(telling.alarm(), None, "an alarm in the past would never end");
        telling.plan(now - SPREAD);
        assert_eq!(telling.due(now, true).len(), 64);
        assert!(telling.due(now, true).is_empty(), "one call at a time");
        telling.answered(Some(&[1; 64]), now);
        assert_eq!(telling.due(now, true).len(), 36);
        telling.answered(Some(&[0; 36]), now);
        assert_eq!((telling.alarm(), telling.recovery().untold()), (None, 0));
        assert_eq!(*counters.applied.lock(), [Some(64), Some(0)]);
    }

    #[test]
    fn lost_call_is_over_and_another_connection_may_tell() {
        let (mut telling, counters) = telling(70);
        let now = Instant::now() + SPREAD;
        let mut other = Telling::new(Arc::clone(telling.recovery()), Some(counters.clone()));
        telling.plan(now - SPREAD);
        other.plan(now - SPREAD);
        assert_eq!(telling.due(now, true).len(), 64);
        assert!(other.due(now, true).is_empty(), "one connection at a time");
        telling.lost();
        assert_eq!((telling.recovery().untold(), telling.alarm()), (6, None));
        assert_eq!(other.due(now + SPREAD, true).len(), 6);
        other.answered(None, now);
        assert_eq!((other.recovery().untold(), other.alarm()), (0, None));
        assert_eq!(*counters.applied.lock(), [None, None]);
    }
}
