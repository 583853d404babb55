//! Counters that decisions find by a label of the request, without writing what all cores share.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use hashbrown::{DefaultHashBuilder, HashTable};
use parking_lot::Mutex;

use crate::telemetry::escape::escape;

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

/// The number of series whose labels are made of a request's values; copies count together.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    made: Arc<AtomicUsize>,
    most: usize,
}

impl Budget {
    /// At most `most` series.
    pub(super) fn new(most: usize) -> Self {
        Self { made: Arc::default(), most }
    }

    fn is_spent(&self) -> bool {
        self.made.load(Ordering::Relaxed) >= self.most
    }

    /// Takes one; false: none is left.
    fn take(&self) -> bool {
        let more = |made| (made < self.most).then_some(made + 1);
        self.made.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }
}

/// Series whose labels are made of a request's values, by label.
#[derive(Debug)]
pub(super) struct Detailed<T> {
    hasher: DefaultHashBuilder,
    shards: Box<[Mutex<HashTable<Labelled<T>>>]>,
    budget: Budget,
}

#[derive(Debug)]
struct Labelled<T> {
    domain: Box<[u8]>,
    label: Box<str>,
    counters: T,
}

impl<T> Detailed<T> {
    /// As many series as `budget` has.
    pub(super) fn new(budget: Budget) -> Self {
        Self {
            hasher: DefaultHashBuilder::default(),
            shards: (0..DETAILED_SHARDS).map(|_| Mutex::default()).collect(),
            budget,
        }
    }

    /// Counts by `count`, with what `make` makes the first time; false when there are as many
    /// series as there may be. A label that `is_known` is no further series.
    pub(super) fn count(
        &self,
        domain: &[u8],
        label: &str,
        is_known: impl FnOnce() -> bool,
        make: impl FnOnce() -> T,
        count: impl FnOnce(&T),
    ) -> bool {
        let hash = self.hasher.hash_one((domain, label));
        let is_it = |known: &Labelled<T>| *known.domain == *domain && *known.label == *label;
        let rehash = |known: &Labelled<T>| self.hasher.hash_one((&*known.domain, &*known.label));
        let mut shard = self.shard(hash).lock();
        if let Some(known) = shard.find(hash, is_it) {
            count(&known.counters);
            return true;
        }
        // Beyond the bound no lock of the family is taken: the rule counts what comes then.
        if self.budget.is_spent() || !is_known() && !self.budget.take() {
            return false;
        }
        let counters = make();
        count(&counters);
        let (domain, label) = (domain.into(), label.into());
        shard.insert_unique(hash, Labelled { domain, label, counters }, rehash);
        true
    }

    #[expect(clippy::indexing_slicing, reason = "the index is below the number of shards")]
    fn shard(&self, hash: u64) -> &Mutex<HashTable<Labelled<T>>> {
        &self.shards[(hash >> 32) as usize % DETAILED_SHARDS]
    }
}
