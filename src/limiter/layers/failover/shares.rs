//! Decisions by a share of each limit, while the store is away.
//!
//! Promise: however often, for however long and for whichever replicas the store is away, at most
//! twice the promise of a limit is admitted; docs/promises.md has the exact words. It rests on
//! three things: a replica decides by its share of the limit ([`Limit::share`]), the state of a
//! share stays as long as it counts, across losses, and no replica counts fewer replicas than
//! decide ([`Replicas`]).
//!
//! Hits that shares admit are told to the store once, when it is back and before it is used again.
//! Nothing is told twice: what was under way when the connection ended may have been charged.
//!
//! While the store is well, nothing here is touched.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use tokio::time::Instant;

use super::replicas::{Place, Replicas};
use super::untold::UntoldHits;
use crate::domain::share::{seed, turn};
use crate::domain::{
    Algorithm, Amendment, Change, Charge, Claim, Clock, Commit, Counter, Group, Hits, Key, Limit,
    Part, Settled, Settlement, SystemClock, Timestamp,
};
use crate::limiter::ask::{Ask, Asked, Ruling, Source};
use crate::limiter::layers::deny_cache::DenyCache;
use crate::limiter::layers::leases::Leases;
use crate::store::recovery::{Recovery, Teller};
use crate::store::{Late, LateAnswer, LimitStore as _, MemoryStore};
use crate::telemetry::metrics::Metrics;

/// Counters of a process that is alone, whose store does not fail but for want of room.
const ALONE_KEYS: usize = 1_024;

/// The memories of the store from which a share starts.
#[derive(Clone, Debug, Default)]
pub struct Memories {
    /// Remembered denials.
    pub denials: Option<Arc<DenyCache>>,
    /// Tokens that were taken in advance.
    pub leases: Option<Arc<Leases>>,
}

/// The shares of a process.
pub struct Shares {
    clock: Arc<dyn Clock>,
    counters: MemoryStore<Arc<dyn Clock>>,
    untold: UntoldHits,
    replicas: Arc<Replicas>,
    memories: Memories,
    metrics: Arc<Metrics>,
}

impl fmt::Debug for Shares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shares").field("replicas", &self.replicas).finish_non_exhaustive()
    }
}

/// A claim that is decided by a share.
struct Local {
    /// Its position in the request.
    claim: usize,
    /// Its position in the group of the shares.
    at: usize,
}

impl Shares {
    /// Shares of at most `max_keys` counters, on `clock`, which shows the time of the store.
    pub fn new(
        clock: Arc<dyn Clock>,
        max_keys: usize,
        replicas: Arc<Replicas>,
        memories: Memories,
        recovery: Arc<Recovery>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            counters: MemoryStore::new(max_keys, Arc::clone(&clock)),
            untold: UntoldHits::new(max_keys, recovery, Arc::clone(&metrics)),
            clock,
            replicas,
            memories,
            metrics,
        }
    }

    /// The shares of a process that shares its store with no other: whole limits.
    pub fn alone(metrics: Arc<Metrics>) -> Self {
        let clock = Arc::new(SystemClock::start());
        let (replicas, recovery) = (Arc::new(Replicas::alone()), Arc::default());
        Self::new(clock, ALONE_KEYS, replicas, Memories::default(), recovery, metrics)
    }

    /// The number of counters of shares.
    pub fn len(&self) -> usize {
        self.counters.len()
    }

    /// True if no share is in use.
    pub fn is_empty(&self) -> bool {
        self.counters.is_empty()
    }

    /// Rules on the claims of `ask` that nothing has ruled on. The whole request is decided at
    /// once: what passed elsewhere is left out, and what failed elsewhere fails, so nothing is
    /// charged here if the request is denied.
    pub(super) fn decide(&self, ask: &mut Ask, commit: Commit) {
        let place = self.replicas.of_loss();
        let (group, locals) = Self::group(ask, place);
        let first = self.begin(ask, &group, &locals);
        // The memory store answers at once.
        let answer = self.counters.decide(&group, commit, Instant::now().into()).now_or_never();
        let readings = answer.map(|answer| answer.readings).unwrap_or_default();
        for local in &locals {
            let source = Source::Share { replicas: place.replicas };
            let share = group.claims.get(local.at);
            let ruling = match share.zip(readings.get(local.at).copied().flatten()) {
                Some((share, reading)) => Ruling { source, ..Ruling::of_store(share, reading) },
                None => full(share),
            };
            self.count(ruling.reading.passed);
            ask.rule_one(local.claim, ruling);
        }
        if commit != Commit::Together {
            return;
        }
        let charged = ask.group().charged(commit, |i| ask.passed(i));
        for (Local { claim: i, .. }, first) in locals.iter().zip(&first) {
            if charged.get(*i) == Some(&true)
                && let Some((claim, asked)) = ask.claim(*i)
            {
                let reset_after = asked.ruling().reading.reset_after;
                self.untold.add(claim, place.replicas, first, reset_after, self.clock.now());
            }
        }
    }

    /// Gives each share that is not in use its first state. Returns the states before the decision,
    /// one per local claim.
    fn begin(&self, ask: &Ask, group: &Group, locals: &[Local]) -> Vec<Counter> {
        let now = self.clock.now();
        let begin = |local: &Local| {
            let (claim, _) = ask.claim(local.claim)?;
            let share = group.claims.get(local.at)?;
            Some(
                self.counters
                    .begin(&share.key, &share.limit, || self.seed(claim, &share.limit, now)),
            )
        };
        locals.iter().map(|local| begin(local).unwrap_or_default()).collect()
    }

    /// The claims of `ask` that are open as claims on shares, and what failed elsewhere.
    fn group(ask: &Ask, place: Place) -> (Group, Vec<Local>) {
        let (mut group, mut locals) = (Group::default(), Vec::new());
        for part in &ask.group().parts {
            let start = group.claims.len();
            for (i, (claim, asked)) in part.claims.clone().zip(ask.claims_of(part)) {
                match asked.known() {
                    None => {
                        locals.push(Local { claim: i, at: group.claims.len() });
                        group.claims.push(share(claim, place));
                    }
                    Some(ruling) if ruling.reading.passed => {}
                    Some(_) => group.claims.push(failing(claim)),
                }
            }
            let claims = start..group.claims.len();
            group.parts.push(Part { claims, ..part.clone() });
        }
        (group, locals)
    }

    /// The first state of the share of `claim`, by what is remembered of its counter.
    fn seed(&self, claim: &Claim, share: &Limit, now: Timestamp) -> Counter {
        let Memories { denials, leases } = &self.memories;
        let denied = denials.as_ref().and_then(|denials| denials.last(&claim.key, &claim.limit));
        let until = match (claim.limit.algorithm(), denied) {
            (Algorithm::TokenBucket { .. }, Some(denial)) => Some(denial.empty_at),
            (Algorithm::TokenBucket { .. }, None) => {
                leases.as_ref().and_then(|leases| leases.full_at(&claim.key, &claim.limit))
            }
            (_, denial) => denial.map(|denial| denial.fits_at),
        };
        let left = until.map(|at| at.saturating_duration_since(Instant::now()));
        left.map_or(Counter::Empty, |left| seed(share, after(now, left), now))
    }

    /// The time until the share of a counter is full.
    fn reset_after(&self, key: &Key, limit: &Limit) -> Duration {
        let place = self.replicas.current();
        let claim = Claim { key: key.clone(), limit: *limit, hits: Hits::Peek(1), lease: None };
        let group = Group {
            parts: vec![Part { quota: false, shadow: false, claims: 0..1 }],
            claims: vec![share(&claim, place)],
        };
        let answer = self.counters.decide(&group, Commit::Never, Instant::now().into());
        let reading =
            answer.now_or_never().and_then(|answer| answer.readings.into_iter().next()?);
        reading.map_or(Duration::ZERO, |reading| reading.reset_after)
    }

    /// Settles a request that was decided here because the store was late, and that the store has
    /// decided after all. Returns what the store is to be given back.
    fn settle(&self, decided: &Decided, late: &LateAnswer) -> Vec<Amendment> {
        let now = self.clock.now();
        let mut back = Vec::new();
        for (i, claim) in decided.group.claims.iter().enumerate() {
            let Some(hits) = claim.hits.charged() else { continue };
            if claim.limit.is_blocked() || late.charged.get(i) != Some(&true) {
                continue;
            }
            let charged_at = late.at;
            // The slot that the request holds is that of the share.
            let is_slot = claim.limit.is_concurrency();
            if is_slot || decided.charged.get(i) != Some(&true) {
                let given = Change::GiveBack { hits, charged_at };
                let change = claim.undo(charged_at).unwrap_or(given);
                back.push(Amendment { key: claim.key.clone(), limit: claim.limit, change });
                continue;
            }
            let (key, limit) = (&claim.key, &claim.limit);
            self.untold.settle(key, limit, hits, self.reset_after(key, limit), now);
        }
        back
    }

    /// Waits for what becomes of a request that the store was late with, and settles it. Counts the
    /// booked hits that nothing has charged.
    pub(super) fn settle_later(self: &Arc<Self>, ask: &Ask, late: Vec<Late>) {
        let unbooked = unbooked(ask);
        if late.is_empty() {
            return self.lose(&unbooked, &[]);
        }
        let group = ask.group().clone();
        let charged = group.charged(Commit::Together, |i| ask.passed(i));
        let decided = Decided { group, charged };
        let shares = Arc::clone(self);
        tokio::spawn(async move {
            let settled = late.into_iter().map(|late| shares.settle_one(&decided, late));
            let charged: Vec<Vec<bool>> = join_all(settled).await;
            shares.lose(&unbooked, &charged);
        });
    }

    /// Settles a request with one late answer. Returns which of its claims that answer has charged;
    /// none if there was no answer.
    async fn settle_one(&self, decided: &Decided, late: Late) -> Vec<bool> {
        let Some(answer) = late.await else { return Vec::new() };
        let back = self.settle(decided, &answer);
        let LateAnswer { charged, amend, .. } = answer;
        if !back.is_empty() {
            amend(back);
        }
        charged
    }

    /// Counts the hits of `unbooked`, by claim, that none of these late answers has charged.
    fn lose(&self, unbooked: &[(usize, u64)], charged: &[Vec<bool>]) {
        let is_lost = |claim: usize| charged.iter().all(|by| by.get(claim) != Some(&true));
        let lost = unbooked.iter().filter(|(claim, _)| is_lost(*claim)).map(|(_, hits)| *hits);
        self.metrics.outage.unbooked_hits.inc_by(lost.fold(0, u64::saturating_add));
    }

    /// Settles a hold that this process has decided by its shares of these limits, once.
    pub(in crate::limiter) fn settle_hold(&self, settlement: &Settlement) {
        let place = self.replicas.of_loss();
        let of_share = |it: &Amendment| {
            let turn = turn(place.rank, it.key.slot(), place.replicas);
            Some(Amendment { limit: it.limit.share(place.replicas, turn)?, ..it.clone() })
        };
        let amendments = settlement.amendments.iter().filter_map(of_share).collect();
        let guard = settlement.guard.clone();
        if self.counters.settle_now(&Settlement { guard, amendments }) != Settled::Now {
            return;
        }
        for Amendment { key, limit, change } in &settlement.amendments {
            if let Change::Return { hits, .. } = *change {
                self.untold.refund(key, limit, hits);
            }
        }
    }

    /// The time of the store, as far as this process knows it.
    pub(in crate::limiter) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Empties the shares of `keys`, and forgets what is untold of them.
    pub(super) fn forget(&self, keys: &[Key]) {
        for key in keys {
            self.untold.forget(key);
        }
        drop(self.counters.forget(keys, Instant::now().into()).now_or_never());
    }

    fn count(&self, passed: bool) {
        let outage = &self.metrics.outage;
        if passed { outage.locally_allowed.inc() } else { outage.locally_denied.inc() }
    }
}

impl Teller for Shares {
    fn take(&self, max: usize, is_here: &dyn Fn(&Key) -> bool) -> Vec<Amendment> {
        let reset_after = |key: &Key, limit: &Limit| self.reset_after(key, limit);
        self.untold.take(max, self.clock.now(), is_here, reset_after)
    }

    fn told(&self, amendments: &[Amendment], applied: Option<&[u64]>) {
        self.untold.told(amendments, applied);
    }
}

/// A request that was decided without the store.
struct Decided {
    group: Group,
    /// The claims that were charged by the decision.
    charged: Vec<bool>,
}

/// The claims whose hits are to be booked and were not, with their hits: an answer without a
/// counter stands in for the store.
fn unbooked(ask: &Ask) -> Vec<(usize, u64)> {
    let lost = |(i, (claim, asked)): (usize, (&Claim, &Asked))| {
        let hits = claim.hits.booked();
        (hits > 0 && !asked.ruling().counted()).then_some((i, hits))
    };
    ask.claims().enumerate().filter_map(lost).collect()
}

/// The claim on the share of `claim`. Nothing passes where there is no share.
fn share(claim: &Claim, place: Place) -> Claim {
    let turn = turn(place.rank, claim.key.slot(), place.replicas);
    let limit = claim.limit.share(place.replicas, turn).unwrap_or_else(|| blocked(&claim.limit));
    Claim { key: claim.key.clone(), limit, hits: claim.hits, lease: None }
}

/// A claim that fails as `claim` has failed elsewhere.
fn failing(claim: &Claim) -> Claim {
    let limit = blocked(&claim.limit);
    Claim { key: claim.key.clone(), limit, hits: Hits::Take(1), lease: None }
}

/// A limit of zero.
fn blocked(limit: &Limit) -> Limit {
    // The period is that of a limit, so it is allowed.
    Limit::new(0, limit.period(), Algorithm::FixedWindow, Charge::Admitted).unwrap_or(*limit)
}

/// The ruling where there is no room for the counter of a share.
fn full(claim: Option<&Claim>) -> Ruling {
    Ruling::uncounted(claim.is_some_and(|claim| matches!(claim.hits, Hits::Refund(_))))
}

fn after(now: Timestamp, wait: Duration) -> Timestamp {
    now.plus_micros(u64::try_from(wait.as_micros()).unwrap_or(u64::MAX))
}
