//! The policies in force, with all that a decision needs of them worked out beforehand.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::key;
use crate::policy::{LimitKind, PolicySet, Rule, RuleLimit};
use crate::telemetry::metrics::{Metrics, RuleMetrics};

/// One version of the policies.
#[derive(Debug)]
pub struct Snapshot {
    /// The compiled policies.
    pub policies: PolicySet,
    /// Counts up with every change, from 1.
    pub version: u64,
    /// By the index of the rule.
    prepared: Vec<Prepared>,
}

/// What a rule needs on every decision.
#[derive(Debug)]
struct Prepared {
    metrics: RuleMetrics,
    /// The end of the counter key of each limit; empty for an unlimited one.
    tails: Vec<Box<[u8]>>,
}

impl Snapshot {
    fn new(policies: PolicySet, version: u64, metrics: &Metrics) -> Self {
        let prepare = |rule: &Rule| Prepared {
            metrics: metrics.rule(&rule.domain, &rule.label),
            tails: rule.limits.iter().map(tail).collect(),
        };
        let prepared = policies.rules().iter().map(|rule| prepare(rule)).collect();
        Self { policies, version, prepared }
    }

    /// The counters of `rule`'s metrics.
    pub fn metrics(&self, rule: &Rule) -> Option<&RuleMetrics> {
        self.prepared.get(rule.index as usize).map(|prepared| &prepared.metrics)
    }

    /// The end of the counter key of the `limit`-th limit of `rule`.
    pub fn tail(&self, rule: &Rule, limit: usize) -> &[u8] {
        let prepared = self.prepared.get(rule.index as usize);
        prepared.and_then(|prepared| prepared.tails.get(limit)).map_or(&[], |tail| tail)
    }
}

fn tail(limit: &RuleLimit) -> Box<[u8]> {
    match &limit.kind {
        LimitKind::Unlimited => Box::default(),
        LimitKind::Counted { limit, .. } => key::tail(limit).into(),
    }
}

/// The policies in force: read without waiting, replaced as a whole.
#[derive(Debug)]
pub struct Policies {
    current: ArcSwap<Snapshot>,
    metrics: Arc<Metrics>,
}

impl Policies {
    /// `policies` as version 1.
    pub fn new(policies: PolicySet, metrics: Arc<Metrics>) -> Self {
        let snapshot = Snapshot::new(policies, 1, &metrics);
        metrics.policy_version.set(1);
        Self { current: ArcSwap::from_pointee(snapshot), metrics }
    }

    /// The version in force.
    pub fn current(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Puts `policies` in force and returns their version. Decisions under way finish with the one they began with.
    pub fn replace(&self, policies: PolicySet) -> u64 {
        let version = self.current.load().version + 1;
        self.current.store(Arc::new(Snapshot::new(policies, version, &self.metrics)));
        self.metrics.policy_version.set(i64::try_from(version).unwrap_or(i64::MAX));
        version
    }
}
