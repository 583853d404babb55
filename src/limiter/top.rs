//! The descriptors that are limited most, and those that ask most, for the questions who is being
//! limited now, by which limit, and who is busy.
//!
//! A caller is a descriptor with the rule that limits it. Limited callers are counted by the limit
//! that binds, and those that shadow mode lets pass are counted apart. Counted is each descriptor
//! that has a limit, as in `tollgate_decisions_total`, by whatever decided: the store, the deny
//! cache, or the failure mode. Requests out of bounds are not, as their descriptors are not looked
//! at.
//!
//! The counts cover the running minute of the clock and the one before it. Each replica counts its
//! own decisions, each thread in a `sketch` of its own, which also states the error of the
//! counts; `caller` describes a caller when it enters the rank.

mod caller;
mod sketch;

use std::cmp::Reverse;
use std::fmt;
use std::hash::{BuildHasher as _, Hash as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::DefaultHashBuilder;

pub use self::caller::Caller;
use self::sketch::{Estimate, Sketch, estimates};
use super::key::SensitiveHasher;
use super::redact::{Sensitivity, ShownDescriptor};
use super::request::{Entry, Request};
use super::status::{Decision, Outcome, Status};
use crate::domain::{Clock, Timestamp};
use crate::telemetry::metrics::LimitOf;
use crate::telemetry::sharded::PerThread;

const MINUTE_MICROS: u64 = 60_000_000;

/// Counts decisions by caller.
pub struct TopCallers {
    sketches: PerThread<Sketches>,
    /// Seeded at random, so that nobody can choose callers that meet in one set.
    hashing: DefaultHashBuilder,
    clock: Box<dyn Clock>,
    /// The running minute, as of the last [tick](Self::tick): decisions read no clock for it.
    minute: AtomicU64,
    started: Timestamp,
}

/// Those of a thread.
#[derive(Debug)]
struct Sketches {
    limited: Sketch<Arc<Caller>>,
    busiest: Sketch<Arc<Caller>>,
}

/// The callers that are asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct TopQuery<'a> {
    /// Of this domain; none: of all.
    pub domain: Option<&'a str>,
    /// Of the rule with this label; none: of all.
    pub rule: Option<&'a str>,
    /// The order.
    pub order: TopOrder,
}

/// The order of callers.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum TopOrder {
    /// Denials.
    #[default]
    Limited,
    /// Descriptors over their limit that shadow mode let pass.
    Shadowed,
    /// All decisions.
    Busiest,
}

/// Callers, those with the highest count first.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranking {
    /// The time from which on decisions are counted.
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
    /// It was counted at least so often.
    pub count: u64,
    /// It was counted at most so many times more.
    pub max_error: u64,
}

impl fmt::Debug for TopCallers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TopCallers").field("is_off", &self.is_off()).finish_non_exhaustive()
    }
}

impl TopCallers {
    /// Keeps about `callers` callers a minute for each thread, by `clock`; 0: none.
    pub fn new(callers: usize, clock: impl Clock) -> Self {
        let started = clock.now();
        Self {
            sketches: PerThread::new(|| Sketches {
                limited: Sketch::new(callers),
                busiest: Sketch::new(callers),
            }),
            hashing: DefaultHashBuilder::default(),
            minute: AtomicU64::new(minute(started)),
            started,
            clock: Box::new(clock),
        }
    }

    /// True if nothing is counted.
    pub fn is_off(&self) -> bool {
        self.sketches.own().limited.is_off()
    }

    /// Looks at the clock; returns the time. Called each second, and before reading.
    pub fn tick(&self) -> Timestamp {
        let now = self.clock.now();
        let minute = minute(now);
        if self.minute.load(Ordering::Relaxed) != minute {
            self.minute.store(minute, Ordering::Relaxed);
        }
        now
    }

    /// Counts the descriptors of `request`, for which `decision` was made.
    pub(super) fn note(&self, hasher: &SensitiveHasher, request: &Request, decision: &Decision) {
        let Sketches { limited, busiest } = self.sketches.own();
        if busiest.is_off() || decision.unavailable.is_some() {
            return;
        }
        let minute = self.minute.load(Ordering::Relaxed);
        for (descriptor, status) in request.descriptors.iter().zip(&decision.statuses) {
            if !has_limit(status) {
                continue;
            }
            let entries = &descriptor.entries;
            let rule = status.rule.as_deref().map_or(0, |rule| decision.snapshot.rule_id(rule));
            let describe = || {
                let domain = decision.snapshot.policies.domain(request.domain);
                let sensitivity =
                    Sensitivity::of(status.rule.as_deref(), domain.map(AsRef::as_ref));
                let shown = ShownDescriptor::new(entries, sensitivity, hasher);
                Arc::new(Caller::of(request.domain, shown, status))
            };
            let hash = self.hash(request.domain, entries, status, rule);
            busiest.count(rule, hash, minute, describe);
            if status.failed() {
                limited.count(rule, self.hash_by_limit(hash, status), minute, describe);
            }
        }
    }

    /// The hash of a caller. A rule names the domain and the keys.
    fn hash(&self, domain: &[u8], entries: &[Entry], status: &Status, rule: u64) -> u64 {
        let mut hash = self.hashing.build_hasher();
        hash.write_u64(rule ^ u64::from(status.client.is_some()));
        if status.rule.is_none() {
            domain.hash(&mut hash);
            for entry in entries {
                entry.key.hash(&mut hash);
            }
        }
        for entry in entries {
            entry.value.hash(&mut hash);
        }
        hash.finish()
    }

    /// The same by the limit that binds.
    fn hash_by_limit(&self, caller: u64, status: &Status) -> u64 {
        let of = status.limited().map_or(LimitOf::Override, |limited| limited.limit.of);
        self.hashing.hash_one((caller, of, status.shadow))
    }

    /// Ranks callers.
    pub fn rank(&self, query: TopQuery<'_>) -> Ranking {
        let TopQuery { domain, rule, order } = query;
        let until = self.tick();
        let minute = minute(until);
        let is_wanted = |caller: &Caller| {
            (order == TopOrder::Busiest || caller.shadow == (order == TopOrder::Shadowed))
                && domain.is_none_or(|domain| *caller.name.domain == *domain)
                && rule.is_none_or(|rule| caller.rule == rule)
        };
        let known = match order {
            TopOrder::Busiest => estimates(self.sketches.iter().map(|of| &of.busiest), minute),
            TopOrder::Limited | TopOrder::Shadowed => {
                estimates(self.sketches.iter().map(|of| &of.limited), minute)
            }
        };
        let mut callers: Vec<TopCaller> =
            known.into_iter().filter(|known| is_wanted(&known.item)).map(TopCaller::from).collect();
        callers.sort_by(|one, other| one.order().cmp(&other.order()));
        let counted = Timestamp::from_micros(minute.saturating_sub(1) * MINUTE_MICROS);
        Ranking { since: counted.max(self.started).min(until), until, callers }
    }
}

/// True if a limit was looked for and found, or the descriptor is known to have none.
const fn has_limit(status: &Status) -> bool {
    match status.outcome {
        Outcome::NoLimit
        | Outcome::NoRule
        | Outcome::UnknownDomain
        | Outcome::OutOfBounds
        | Outcome::Settled
        | Outcome::InvalidHold => false,
        Outcome::Unlimited | Outcome::Limited(_) | Outcome::InvalidOverride => true,
    }
}

impl From<Estimate<Arc<Caller>>> for TopCaller {
    fn from(Estimate { item, count, error }: Estimate<Arc<Caller>>) -> Self {
        Self { caller: item, count: count - error, max_error: error }
    }
}

impl TopCaller {
    /// By count, then by name so that the order is always the same.
    fn order(&self) -> impl Ord {
        let Caller { name, rule, client, .. } = &*self.caller;
        (Reverse(self.count), Reverse(self.max_error), name, rule, *client)
    }
}

/// The number of the minute, counted from 1970.
const fn minute(at: Timestamp) -> u64 {
    at.as_micros() / MINUTE_MICROS
}
