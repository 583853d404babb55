//! Counters that decisions find by a label of the request, without writing what all cores share.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use hashbrown::{DefaultHashBuilder, HashTable};
use parking_lot::Mutex;

use crate::telemetry::escape::escape;
use crate::telemetry::sharded::ShardedCounter;

/// The counters of one rule: descriptors decided, by outcome.
#[derive(Clone, Debug)]
pub struct RuleMetrics {
    /// Passed.
    pub ok: ShardedCounter,
    /// Over its limit.
    pub over_limit: ShardedCounter,
    /// Over its limit, but passed because of shadow mode.
    pub shadowed: ShardedCounter,
}

/// Counters by domain, as requests call it: policies or clients name each. Read on decisions,
/// copied when a domain is new.
#[derive(Debug)]
pub(super) struct ByDomain<T>(ArcSwap<HashMap<Box<[u8]>, T>>);

impl<T> Default for ByDomain<T> {
    fn default() -> Self {
        Self(ArcSwap::default())
    }
}

impl<T: Clone> ByDomain<T> {
    /// Counts by `count`, with what `make` makes of the escaped domain the first time.
    pub(super) fn count(
        &self,
        domain: &[u8],
        make: impl FnOnce(&str) -> T,
        count: impl FnOnce(&T),
    ) {
        if let Some(known) = self.0.load().get(domain) {
            return count(known);
        }
        let new = make(&escape(domain).to_string());
        self.0.rcu(|known| {
            let mut more = HashMap::clone(known);
            more.insert(domain.into(), new.clone());
            more
        });
        count(&new);
    }
}

/// Shards of [`Detailed`]: more than cores, so that two cores seldom meet.
const DETAILED_SHARDS: usize = 64;

/// Series whose labels are made of a request's values, by label.
#[derive(Debug)]
pub(super) struct Detailed {
    hasher: DefaultHashBuilder,
    shards: Box<[Mutex<HashTable<DetailedRule>>]>,
    made: AtomicUsize,
    most: usize,
}

#[derive(Debug)]
struct DetailedRule {
    domain: Box<str>,
    rule: Box<str>,
    metrics: RuleMetrics,
}

impl Detailed {
    /// At most `most` series.
    pub(super) fn new(most: usize) -> Self {
        Self {
            hasher: DefaultHashBuilder::default(),
            shards: (0..DETAILED_SHARDS).map(|_| Mutex::default()).collect(),
            made: AtomicUsize::new(0),
            most,
        }
    }

    /// Counts by `count`, with what `make` makes the first time; false when there are as many
    /// series as there may be. A label that `is_known` is no further series.
    pub(super) fn count(
        &self,
        domain: &str,
        rule: &str,
        is_known: impl FnOnce() -> bool,
        make: impl FnOnce() -> RuleMetrics,
        count: impl FnOnce(&RuleMetrics),
    ) -> bool {
        let hash = self.hasher.hash_one((domain, rule));
        let is_it = |known: &DetailedRule| *known.domain == *domain && *known.rule == *rule;
        let rehash = |known: &DetailedRule| self.hasher.hash_one((&*known.domain, &*known.rule));
        let mut shard = self.shard(hash).lock();
        if let Some(known) = shard.find(hash, is_it) {
            count(&known.metrics);
            return true;
        }
        // Beyond the bound no lock of the family is taken: the rule counts what comes then.
        if self.made.load(Ordering::Relaxed) >= self.most {
            return false;
        }
        let more = |made| (made < self.most).then_some(made + 1);
        if !is_known()
            && self.made.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_err()
        {
            return false;
        }
        let metrics = make();
        count(&metrics);
        let (domain, rule) = (domain.into(), rule.into());
        shard.insert_unique(hash, DetailedRule { domain, rule, metrics }, rehash);
        true
    }

    #[expect(clippy::indexing_slicing, reason = "the index is below the number of shards")]
    fn shard(&self, hash: u64) -> &Mutex<HashTable<DetailedRule>> {
        &self.shards[(hash >> 32) as usize % DETAILED_SHARDS]
    }
}
