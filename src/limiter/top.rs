//! The callers that are denied most, for the question who is being limited now.
//!
//! A caller is a descriptor with the rule that limits it. Denials that shadow mode let pass are
//! counted apart. Counted is each descriptor over its limit, as in `tollgate_decisions_total`, by
//! whatever decided: the store, the deny cache, or the failure mode. Requests out of bounds are
//! not, as their descriptors are not looked at.
//!
//! The counts cover the running minute of the clock and the one before it. Each replica counts its
//! own decisions. An admitted request costs nothing here. A denial costs a hash and the lock of a
//! set of `sketch`, which also states the error of the counts; `caller` describes a caller when it
//! enters the rank.

mod caller;
mod sketch;

use std::cmp::Reverse;
use std::fmt;
use std::hash::{BuildHasher as _, Hash as _, Hasher as _};
use std::sync::Arc;

use hashbrown::DefaultHashBuilder;

pub use self::caller::Caller;
use self::sketch::{Estimate, Sketch};
use super::key::SensitiveHasher;
use super::redact::{Sensitivity, ShownDescriptor};
use super::request::{Entry, Request};
use super::status::{Decision, Outcome, Status};
use crate::domain::{Clock, Timestamp};

const MINUTE_MICROS: u64 = 60_000_000;

/// Counts denials by caller.
pub struct TopCallers {
    sketch: Sketch<Arc<Caller>>,
    /// Seeded at random, so that nobody can choose callers that meet in one set.
    hashing: DefaultHashBuilder,
    clock: Box<dyn Clock>,
    started: Timestamp,
}

/// Callers, those with the most denials first.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranking {
    /// The time from which on denials are counted.
    pub since: Timestamp,
    /// The present.
    pub until: Timestamp,
    /// The callers, in order.
    pub callers: Vec<TopCaller>,
}

/// A caller with its count.
#[derive(Clone, Debug, PartialEq)]
pub struct TopCaller {
    /// The caller.
    pub caller: Arc<Caller>,
    /// It was denied at least so often.
    pub denials: u64,
    /// It was denied at most so many times more.
    pub max_error: u64,
}

impl fmt::Debug for TopCallers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TopCallers").field("is_off", &self.is_off()).finish_non_exhaustive()
    }
}

impl TopCallers {
    /// Keeps about `callers` callers a minute, by `clock`; 0: none.
    pub fn new(callers: usize, clock: impl Clock) -> Self {
        Self {
            sketch: Sketch::new(callers),
            hashing: DefaultHashBuilder::default(),
            started: clock.now(),
            clock: Box::new(clock),
        }
    }

    /// True if nothing is counted.
    pub fn is_off(&self) -> bool {
        self.sketch.is_off()
    }

    /// Counts the descriptors of `request` that `decision` found over their limit.
    pub(super) fn note(&self, hasher: &SensitiveHasher, request: &Request, decision: &Decision) {
        if self.is_off() {
            return;
        }
        let minute = minute(self.clock.now());
        for (descriptor, status) in request.descriptors.iter().zip(&decision.statuses) {
            if !status.failed() || matches!(status.outcome, Outcome::OutOfBounds) {
                continue;
            }
            let entries = &descriptor.entries;
            let hash = self.hash(&request.domain, entries, status);
            self.sketch.count(hash, minute, || {
                let domain = decision.snapshot.policies.domain(&request.domain);
                let sensitivity =
                    Sensitivity::of(status.rule.as_deref(), domain.map(AsRef::as_ref));
                let shown = ShownDescriptor::new(entries, sensitivity, hasher);
                Arc::new(Caller::of(&request.domain, shown, status))
            });
        }
    }

    fn hash(&self, domain: &[u8], entries: &[Entry], status: &Status) -> u64 {
        let mut hash = self.hashing.build_hasher();
        domain.hash(&mut hash);
        for Entry { key, value } in entries {
            key.hash(&mut hash);
            value.hash(&mut hash);
        }
        let rule = status.rule.as_deref().map_or("", |rule| &rule.label);
        (rule, status.client.is_some(), status.shadow).hash(&mut hash);
        hash.finish()
    }

    /// Ranks the callers of `domain`, or of all domains: those that were denied, or with `shadow`
    /// those that shadow mode let pass.
    pub fn rank(&self, domain: Option<&str>, shadow: bool) -> Ranking {
        let until = self.clock.now();
        let minute = minute(until);
        let is_wanted = |caller: &Caller| {
            caller.shadow == shadow && domain.is_none_or(|domain| *caller.name.domain == *domain)
        };
        let estimates = self.sketch.estimates(minute).into_iter();
        let mut callers: Vec<TopCaller> =
            estimates.filter(|known| is_wanted(&known.item)).map(TopCaller::from).collect();
        callers.sort_by(|one, other| one.order().cmp(&other.order()));
        let counted = Timestamp::from_micros(minute.saturating_sub(1) * MINUTE_MICROS);
        Ranking { since: counted.max(self.started).min(until), until, callers }
    }
}

impl From<Estimate<Arc<Caller>>> for TopCaller {
    fn from(Estimate { item, count, error }: Estimate<Arc<Caller>>) -> Self {
        Self { caller: item, denials: count - error, max_error: error }
    }
}

impl TopCaller {
    /// By denials, then by name so that the order is always the same.
    fn order(&self) -> impl Ord {
        let Caller { name, rule, client, .. } = &*self.caller;
        (Reverse(self.denials), Reverse(self.max_error), name, rule, *client)
    }
}

/// The number of the minute, counted from 1970.
const fn minute(at: Timestamp) -> u64 {
    at.as_micros() / MINUTE_MICROS
}
