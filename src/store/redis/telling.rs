//! The part of a connection that tells Redis what was charged without it.
//!
//! One connection of the process tells at a time, and what it has taken is under way until the last
//! answer: one call, or in a cluster one for each slot. A node is told of its own slots only.
//! `batch.rs` sends the calls; [`Teller`] knows what is in them.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::node::Node;
use super::script::MAX_AMENDMENTS;
use crate::domain::{Amendment, Key};
use crate::store::recovery::{Recovery, Teller};

/// The replicas begin to tell Redis what it does not know within this time.
const SPREAD: Duration = Duration::from_millis(100);

/// The pause after which a node that is closed and had nothing to be told is looked at again. While
/// another node is away there are always untold hits, and each look reads the whole table.
const PAUSE: Duration = Duration::from_secs(1);

/// The pause after Redis has refused and executed nothing, as a replica or a full server does.
const RETRY: Duration = Duration::from_millis(250);

/// The telling of one connection.
pub(super) struct Telling {
    recovery: Arc<Recovery>,
    teller: Option<Arc<dyn Teller>>,
    /// The node of a cluster that the connection leads to.
    node: Option<Node>,
    /// The time of the next call.
    at: Option<Instant>,
    /// No call is planned before.
    not_before: Option<Instant>,
    /// The charges of each call under way, in order.
    sent: VecDeque<Vec<Amendment>>,
}

/// The work at a given time.
#[derive(Debug)]
pub(super) enum Due<'a> {
    /// Nothing now.
    Nothing,
    /// Nothing, and nothing is left that this server is to be told.
    Settled,
    /// Calls to send, which are under way from now on.
    Calls(&'a VecDeque<Vec<Amendment>>),
}

impl Telling {
    pub(super) const fn new(
        recovery: Arc<Recovery>,
        teller: Option<Arc<dyn Teller>>,
        node: Option<Node>,
    ) -> Self {
        Self { recovery, teller, node, at: None, not_before: None, sent: VecDeque::new() }
    }

    /// The recovery of the process.
    pub(super) const fn recovery(&self) -> &Arc<Recovery> {
        &self.recovery
    }

    /// The time at which [`due`](Self::due) has something to do.
    pub(super) const fn alarm(&self) -> Option<Instant> {
        self.at
    }

    /// Plans a call after an outage: calls wait for it.
    pub(super) fn begin(&mut self, now: Instant) {
        self.not_before = None;
        self.plan(now);
    }

    /// Plans a call if something is untold, not at the same moment as all other replicas.
    pub(super) fn plan(&mut self, now: Instant) {
        if self.at.is_none() && self.recovery.untold() > 0 {
            let spread = RandomState::new().hash_one(0) % SPREAD.as_micros() as u64;
            self.at = Some(now + Duration::from_micros(spread)).max(self.not_before);
        }
    }

    /// The work at `now`. A connection that is not `fit` drops its plan, and makes another one when
    /// it is.
    pub(super) fn due(&mut self, now: Instant, fit: bool) -> Due<'_> {
        if self.at.is_none_or(|at| now < at) {
            return Due::Nothing;
        }
        self.at = None;
        let Some(teller) = self.teller.as_ref().filter(|_| fit) else { return Due::Nothing };
        if !self.recovery.begin_telling() {
            // Another connection does it. If that is lost, this one goes on.
            self.at = Some(now + SPREAD);
            return Due::Nothing;
        }
        let is_here = |key: &Key| self.node.as_ref().is_none_or(|node| node.has(key.slot()));
        let mut taken = self.recovery.take_kept(MAX_AMENDMENTS, &is_here);
        taken.extend(teller.take(MAX_AMENDMENTS - taken.len(), &is_here));
        if taken.is_empty() {
            self.recovery.end_telling();
            self.not_before = Some(now + PAUSE);
            return Due::Settled;
        }
        self.sent = self.calls(taken);
        Due::Calls(&self.sent)
    }

    /// One call, or one for each slot.
    fn calls(&self, mut amendments: Vec<Amendment>) -> VecDeque<Vec<Amendment>> {
        if self.node.is_none() {
            return VecDeque::from([amendments]);
        }
        amendments.sort_by_cached_key(|amendment| amendment.key.slot());
        let of_slots = amendments.chunk_by(|a, b| a.key.slot() == b.key.slot());
        of_slots.map(<[Amendment]>::to_vec).collect()
    }

    /// Redis has answered the first call under way; `applied` is what it charged. Plans the next
    /// ones after the last answer, unless Redis has refused.
    pub(super) fn answered(&mut self, applied: Option<&[u64]>, now: Instant) {
        self.end(applied);
        if applied.is_some() && self.sent.is_empty() && self.recovery.untold() > 0 {
            self.at = Some(now);
        }
    }

    /// Redis has refused the first call under way and has executed nothing of it. It is told again,
    /// by this connection or another.
    pub(super) fn refused(&mut self, now: Instant) {
        let Some(sent) = self.sent.pop_front() else { return };
        self.recovery.keep(sent);
        if self.sent.is_empty() {
            self.recovery.end_telling();
            self.at = Some(now + RETRY);
        }
    }

    /// The connection is lost. The calls under way may have been executed.
    pub(super) fn lost(&mut self) {
        self.at = None;
        while !self.sent.is_empty() {
            self.end(None);
        }
    }

    fn end(&mut self, applied: Option<&[u64]>) {
        let Some(sent) = self.sent.pop_front() else { return };
        if self.sent.is_empty() {
            self.recovery.end_telling();
        }
        if let Some(teller) = &self.teller {
            teller.told(&sent, applied);
        }
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;
    use redis::Value;

    use super::*;
    use crate::domain::{Algorithm, Change, Charge, Limit, Told};
    use crate::redis::Address;
    use crate::redis::cluster::{AskSlots, Cluster};

    /// Has so many counters to tell.
    struct Counters {
        left: Mutex<Vec<Key>>,
        recovery: Arc<Recovery>,
        applied: Mutex<Vec<Option<u64>>>,
    }

    impl Teller for Counters {
        fn take(&self, max: usize, is_here: &dyn Fn(&Key) -> bool) -> Vec<Amendment> {
            let mut left = self.left.lock();
            let here = left.iter().filter(|key| is_here(key)).take(max).cloned();
            let taken: Vec<Key> = here.collect();
            left.retain(|key| !taken.contains(key));
            let limit = Limit::new(
                1,
                Duration::from_secs(1),
                Algorithm::SlidingWindow { slots: 1 },
                Charge::Admitted,
            );
            let change = Change::Tell(Told::Sliding { hits: 1, age: 0 });
            let tell = |key| Amendment { key, limit: limit.unwrap(), change };
            taken.into_iter().map(tell).collect()
        }

        fn told(&self, amendments: &[Amendment], applied: Option<&[u64]>) {
            self.applied.lock().push(applied.map(|applied| applied.iter().sum()));
            self.recovery.remove(amendments.len());
        }
    }

    fn telling(left: usize) -> (Telling, Arc<Counters>) {
        let counters = counters((0..left).map(|i| format!("key{i}")).collect());
        let recovery = Arc::clone(&counters.recovery);
        (Telling::new(recovery, Some(counters.clone()), None), counters)
    }

    fn counters(keys: Vec<String>) -> Arc<Counters> {
        let recovery = Arc::<Recovery>::default();
        for _ in &keys {
            recovery.add();
        }
        let left = Mutex::new(keys.into_iter().map(|key| Key::new(key.into_bytes())).collect());
        Arc::new(Counters { left, recovery, applied: Mutex::default() })
    }

    /// The numbers of amendments in the calls to send.
    fn sizes(due: &Due<'_>) -> Vec<usize> {
        match due {
            Due::Nothing | Due::Settled => vec![],
            Due::Calls(calls) => calls.iter().map(Vec::len).collect(),
        }
    }

    #[test]
    fn everything_is_told_in_calls_of_64() {
        let (mut telling, counters) = telling(100);
        let now = Instant::now() + SPREAD;
        assert!(matches!(telling.due(now, true), Due::Nothing), "nothing is planned");
        telling.plan(now - SPREAD);
        assert!(matches!(telling.due(now, false), Due::Nothing), "not fit");
        assert_eq!(telling.alarm(), None, "an alarm in the past would never end");
        telling.plan(now - SPREAD);
        assert_eq!(sizes(&telling.due(now, true)), [64]);
        assert!(matches!(telling.due(now, true), Due::Nothing), "one call at a time");
        telling.answered(Some(&[1; 64]), now);
        assert_eq!(sizes(&telling.due(now, true)), [36]);
        telling.answered(Some(&[0; 36]), now);
        assert_eq!((telling.alarm(), telling.recovery().untold()), (None, 0));
        assert_eq!(*counters.applied.lock(), [Some(64), Some(0)]);
    }

    #[test]
    fn lost_call_is_over_and_another_connection_may_tell() {
        let (mut telling, counters) = telling(70);
        let now = Instant::now() + SPREAD;
        let mut other = Telling::new(Arc::clone(telling.recovery()), Some(counters.clone()), None);
        telling.plan(now - SPREAD);
        other.plan(now - SPREAD);
        assert_eq!(sizes(&telling.due(now, true)), [64]);
        assert!(matches!(other.due(now, true), Due::Nothing), "one connection at a time");
        telling.lost();
        assert_eq!((telling.recovery().untold(), telling.alarm()), (6, None));
        assert_eq!(sizes(&other.due(now + SPREAD, true)), [6]);
        other.answered(None, now);
        assert_eq!((other.recovery().untold(), other.alarm()), (0, None));
        assert_eq!(*counters.applied.lock(), [None, None]);
    }

    #[test]
    fn refused_call_is_told_again_and_nothing_is_settled_meanwhile() {
        let (mut telling, counters) = telling(70);
        let now = Instant::now() + SPREAD;
        let mut other = Telling::new(Arc::clone(telling.recovery()), Some(counters.clone()), None);
        telling.plan(now - SPREAD);
        assert_eq!(sizes(&telling.due(now, true)), [64]);
        telling.refused(now);
        assert_eq!((telling.recovery().untold(), telling.alarm()), (70, Some(now + RETRY)));
        telling.lost();
        assert_eq!(telling.recovery().untold(), 70, "what was refused is not lost");
        other.begin(now - SPREAD);
        assert_eq!(sizes(&other.due(now, true)), [64]);
        other.answered(Some(&[1; 64]), now);
        assert_eq!(sizes(&other.due(now, true)), [6]);
        other.answered(Some(&[1; 6]), now);
        assert_eq!(other.recovery().untold(), 0);
        assert_eq!(*counters.applied.lock(), [Some(64), Some(6)]);
    }

    struct NoAnswer;

    impl AskSlots for NoAnswer {
        async fn slots(&self, _: &Address) -> Result<Value, String> {
            Err("no answer".to_owned())
        }
    }

    #[tokio::test]
    async fn node_is_told_of_its_own_slots_in_a_call_for_each() {
        let counters = counters(["{a}1", "{a}2", "{b}1", "{c}1"].map(String::from).to_vec());
        let cluster = Arc::new(Cluster::start(vec![], NoAnswer));
        let slot = |tag: &str| Key::new(tag.as_bytes()).slot();
        let [here, there] = [1, 2].map(|port| Address::Tcp("h".to_owned(), port));
        for (tag, node) in [("{a}", &here), ("{b}", &here), ("{c}", &there)] {
            cluster.moved(slot(tag), Some(node));
        }
        let id = cluster.number(&here).unwrap();
        let node = Node { cluster, id, address: here };
        let recovery = Arc::clone(&counters.recovery);
        let mut telling = Telling::new(recovery, Some(counters.clone()), Some(node));
        let now = Instant::now() + SPREAD;
        telling.begin(now - SPREAD);
        let mut sent = sizes(&telling.due(now, true));
        sent.sort_unstable();
        assert_eq!(sent, [1, 2]);
        telling.answered(Some(&[1]), now);
        assert_eq!(telling.alarm(), None, "another call is under way");
        assert!(!counters.recovery.begin_telling(), "so no other connection tells");
        telling.answered(Some(&[1, 1]), now);
        assert!(matches!(telling.due(now, true), Due::Settled), "the rest is of another node");
        assert_eq!(counters.recovery.untold(), 1);
        telling.plan(now);
        assert!(telling.alarm() >= Some(now + PAUSE), "seldom, as nothing is here");
        telling.at = None;
        telling.begin(now);
        assert!(telling.alarm() < Some(now + SPREAD), "after an outage at once");
    }
}
