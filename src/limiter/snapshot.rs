//! The policies in force, with all that a decision needs of them worked out beforehand.
//!
//! Every decision reads the snapshot, so its count of references must not be a cache line that all
//! cores write. Each thread keeps a [`SnapshotRef`] with a count of its own, and decisions on that
//! thread share it; a thread notices a new snapshot at its next decision. An idle thread keeps the
//! snapshot of its last decision in memory.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;

use super::estimates::{Estimates, Learned};
use super::key;
use super::scales::{Dial, Scales};
use super::signals::{RuleSignal, Signals};
use super::unknown::UnknownDomains;
use crate::policy::{LimitKind, PolicySet, Rule, RuleLimit};
use crate::telemetry::metrics::{Metrics, RuleMetrics};

/// One version of the policies.
#[derive(Debug)]
pub struct Snapshot {
    /// The compiled policies.
    pub policies: PolicySet,
    /// Counts up with every change, from 1.
    pub version: u64,
    /// False before the first policies, of a process that may start without, or of a feed that may
    /// have more domains.
    pub configured: bool,
    /// By the index of the rule.
    prepared: Vec<Prepared>,
    /// By the number of the rule.
    signals: HashMap<u32, Arc<RuleSignal>>,
}

/// The state that outlives a version of the policies.
#[derive(Clone, Copy)]
struct Beside<'a> {
    metrics: &'a Metrics,
    scales: &'a Scales,
    signals: &'a Signals,
    estimates: &'a Estimates,
}

/// The parts of a rule that every decision needs.
#[derive(Debug)]
struct Prepared {
    /// A hash of its domain and label.
    id: u64,
    metrics: RuleMetrics,
    stem: key::Stem,
    /// The end of the counter key of each limit; empty for an unlimited one.
    tails: Vec<Box<[u8]>>,
    dial: Arc<Dial>,
    /// The number of a rule that adapts.
    signal: Option<u32>,
    /// The costs under each limit that learns; empty: none does.
    learned: Box<[Option<Arc<Learned>>]>,
}

impl Snapshot {
    fn new(
        policies: PolicySet,
        version: u64,
        configured: bool,
        Beside { metrics, scales, signals, estimates }: Beside<'_>,
    ) -> Self {
        let signals = policies.rules().iter().filter_map(|rule| signals.of(rule)).collect();
        let prepare = |rule: &Rule| Prepared {
            id: rule_id(rule),
            metrics: metrics.rule(&rule.domain, rule.limits.len(), || rule.nodes()),
            stem: key::Stem::new(rule.domain.as_bytes(), &rule.path),
            tails: rule.limits.iter().map(tail).collect(),
            dial: scales.dial(&rule.domain, &rule.label),
            signal: rule.adaptive.map(|_| rule.number()),
            learned: estimates.of(rule),
        };
        let prepared = policies.rules().iter().map(|rule| prepare(rule)).collect();
        Self { policies, version, configured, prepared, signals }
    }

    /// The counters of `rule`'s metrics.
    pub fn metrics(&self, rule: &Rule) -> &RuleMetrics {
        &self.prepared(rule).metrics
    }

    /// The part of `rule`'s limits that is in force.
    pub fn dial(&self, rule: &Rule) -> &Dial {
        &self.prepared(rule).dial
    }

    /// The number of a rule that adapts.
    pub(super) fn signal(&self, rule: &Rule) -> Option<u32> {
        self.prepared(rule).signal
    }

    /// The signal of the rule with this number.
    pub(super) fn signal_of(&self, number: u32) -> Option<&Arc<RuleSignal>> {
        self.signals.get(&number)
    }

    /// The costs under the `limit`-th limit of `rule`, if it learns.
    pub(super) fn learned(&self, rule: &Rule, limit: usize) -> Option<&Arc<Learned>> {
        self.prepared(rule).learned.get(limit)?.as_ref()
    }

    /// A number for `rule` that stays the same as long as its domain and path do.
    pub(super) fn rule_id(&self, rule: &Rule) -> u64 {
        self.prepared(rule).id
    }

    /// The beginning of the counter keys of `rule`.
    pub(super) fn stem(&self, rule: &Rule) -> &key::Stem {
        &self.prepared(rule).stem
    }

    /// The end of the counter key of the `limit`-th limit of `rule`.
    #[expect(clippy::indexing_slicing, reason = "a wrong tail would be another counter")]
    pub fn tail(&self, rule: &Rule, limit: usize) -> &[u8] {
        &self.prepared(rule).tails[limit]
    }

    #[expect(clippy::indexing_slicing, reason = "a rule's index is its position in its own set")]
    fn prepared(&self, rule: &Rule) -> &Prepared {
        &self.prepared[rule.index as usize]
    }
}

fn rule_id(rule: &Rule) -> u64 {
    let mut hash = DefaultHasher::new();
    (&rule.domain, &rule.label).hash(&mut hash);
    hash.finish()
}

fn tail(limit: &RuleLimit) -> Box<[u8]> {
    match &limit.kind {
        LimitKind::Unlimited => Box::default(),
        LimitKind::Counted { limit, .. } => key::tail(limit).into(),
    }
}

/// A snapshot, counted by the thread that began to use it; see the module.
#[derive(Clone)]
pub struct SnapshotRef(Arc<Held>);

/// The process's reference, of which each thread has one.
struct Held(Arc<Snapshot>);

impl SnapshotRef {
    /// `rule`, which is one of this snapshot.
    pub fn rule(&self, rule: &Rule) -> RuleRef {
        RuleRef { snapshot: self.clone(), index: rule.index }
    }
}

impl Deref for SnapshotRef {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        &self.0.0
    }
}

impl fmt::Debug for SnapshotRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotRef").field("version", &self.version).finish_non_exhaustive()
    }
}

/// A rule, held by way of its snapshot: a decision counts no reference to a rule, which all cores
/// would write.
#[derive(Clone)]
pub struct RuleRef {
    snapshot: SnapshotRef,
    index: u32,
}

impl RuleRef {
    /// The costs under its `limit`-th limit, if that learns.
    pub(super) fn learned(&self, limit: usize) -> Option<&Arc<Learned>> {
        self.snapshot.learned(self, limit)
    }
}

impl Deref for RuleRef {
    type Target = Rule;

    #[expect(clippy::indexing_slicing, reason = "made from a rule of this snapshot")]
    fn deref(&self) -> &Rule {
        &self.snapshot.policies.rules()[self.index as usize]
    }
}

impl fmt::Debug for RuleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RuleRef").field(&self.label).finish()
    }
}

/// The policies in force: read without waiting, replaced as a whole.
#[derive(Debug)]
pub struct Policies {
    current: ArcSwap<Snapshot>,
    /// A domain has limits that hold.
    holds: AtomicBool,
    metrics: Arc<Metrics>,
    /// The parts of rules' limits that are in force.
    pub scales: Scales,
    /// The signals of rules that adapt.
    pub signals: Signals,
    /// The costs of requests under limits that learn from them.
    estimates: Estimates,
    /// Domains of requests that no policy names.
    pub(super) unknown: UnknownDomains,
}

impl Policies {
    /// `policies` as version 1.
    pub fn new(policies: PolicySet, metrics: Arc<Metrics>) -> Self {
        Self::starting(policies, true, metrics)
    }

    /// `policies` as version 1; not `configured`: others are still to come.
    pub fn starting(policies: PolicySet, configured: bool, metrics: Arc<Metrics>) -> Self {
        let (scales, signals, estimates) = Default::default();
        let beside =
            Beside { metrics: &metrics, scales: &scales, signals: &signals, estimates: &estimates };
        let snapshot = Snapshot::new(policies, 1, configured, beside);
        metrics.policies.version.set(1);
        let holds = AtomicBool::new(snapshot.policies.have_holds());
        let current = ArcSwap::from_pointee(snapshot);
        let unknown = UnknownDomains::new();
        Self { current, holds, metrics, scales, signals, estimates, unknown }
    }

    /// The version in force. A decision takes it once and keeps it to its end.
    ///
    /// # Concurrency
    /// Writes only what this thread writes, except on the first call after a change.
    pub fn current(&self) -> SnapshotRef {
        thread_local!(static HELD: RefCell<Option<SnapshotRef>> = const { RefCell::new(None) });
        let current = self.current.load();
        HELD.with_borrow_mut(|held| match held {
            Some(held) if Arc::ptr_eq(&held.0.0, &current) => held.clone(),
            _ => held.insert(SnapshotRef(Arc::new(Held(Arc::clone(&current))))).clone(),
        })
    }

    /// True if a domain has limits that hold: otherwise requests need not be looked at for handles.
    pub fn have_holds(&self) -> bool {
        self.holds.load(Ordering::Acquire)
    }

    /// True if a rule adapts.
    pub fn have_adaptive(&self) -> bool {
        !self.current.load().signals.is_empty()
    }

    /// Puts `policies` in force and returns their version. Decisions under way finish with the one
    /// they began with. `first`: these are not only what operators applied, so none are to come.
    pub fn replace(&self, policies: PolicySet, first: bool) -> u64 {
        let current = self.current.load();
        let (version, configured) = (current.version + 1, current.configured || first);
        let holds = policies.have_holds();
        // Never false while such policies are in force.
        self.holds.fetch_or(holds, Ordering::AcqRel);
        let Self { metrics, scales, signals, estimates, .. } = self;
        let beside = Beside { metrics, scales, signals, estimates };
        let snapshot = Snapshot::new(policies, version, configured, beside);
        self.current.store(Arc::new(snapshot));
        drop(current);
        self.scales.drop_unused();
        self.signals.drop_unused();
        self.estimates.drop_unused();
        self.holds.store(holds, Ordering::Release);
        self.metrics.policies.version.set(i64::try_from(version).unwrap_or(i64::MAX));
        version
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Options, Source, compile};

    fn set(text: &str) -> PolicySet {
        compile(&[Source::new("test", text)], &Options::default()).unwrap().set
    }

    #[test]
    fn decisions_of_a_thread_share_one_reference_and_see_each_change() {
        let metrics = Arc::new(Metrics::new(0));
        let policies = Policies::new(set("domain: a"), Arc::clone(&metrics));
        let other = Policies::new(set("domain: b"), metrics);
        let shared = policies.current.load_full();
        let under_way: Vec<SnapshotRef> = (0..100).map(|_| policies.current()).collect();
        assert_eq!(Arc::strong_count(&shared), 3, "in force, here, and once for the thread");
        policies.replace(set("domain: c"), true);
        assert!(policies.current().policies.domain(b"c").is_some(), "from the next decision on");
        assert!(under_way.iter().all(|snapshot| snapshot.policies.domain(b"a").is_some()));
        assert!(other.current().policies.domain(b"b").is_some(), "not that of another set");
    }
}
