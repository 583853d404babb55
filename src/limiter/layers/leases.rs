//! The layer that spends tokens taken in advance: a hot counter is asked for once per lease, not
//! once per request.
//!
//! Opt-in per rule, for token buckets. Tokens are charged in the store before anyone spends them,
//! and spent until `ttl` after they were *asked* for, so the bucket's promise holds for any number
//! of replicas, whatever becomes of them (see `domain/lease.rs`); but for a machine that is
//! suspended, whose clock sleeps with it: it may spend one lease too late. The price is paid in
//! tokens that nobody spends in time: they are stranded, and counted.
//!
//! A lease is asked for by a request that goes to the store anyway, one request at a time for each
//! counter. Its size follows demand: doubled when it is spent in less than half its time, cut down
//! to what was spent when it ends unspent, halved when the store refuses it. Counters that few ask
//! for are never leased.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::key_table::{Fleeting, KeyTable};
use crate::domain::{Claim, Hits, Key, Lease, LeaseAsk, Limit, Reading, Timestamp, Verdict};
use crate::limiter::ask::{Ask, Ruling};
use crate::policy::LeaseTerms;
use crate::telemetry::metrics::Metrics;

/// Counters that may be leased, or be on the way there, at a time.
const MAX_COUNTERS: usize = 16_384;

/// So many requests within a `ttl` make a lease worth its while; also the smallest lease.
const DEMAND: u64 = 8;

/// The tokens that this process holds of buckets.
#[derive(Debug)]
pub struct Leases {
    table: KeyTable<Holding>,
    metrics: Arc<Metrics>,
}

/// The tokens held of one bucket, and the demand for them.
#[derive(Clone, Debug)]
struct Holding {
    /// The tokens not spent yet.
    left: u64,
    /// From when on they must not be spent.
    until: Instant,
    /// As the store knows it; none: there is none, or it was reported as finished.
    lease: Option<Lease>,
    granted_at: Instant,
    /// At the grant: the tokens of the bucket beside the lease, and the time at which it was to be
    /// full.
    beside: u64,
    full_at: Instant,
    /// The size of the next lease.
    want: u64,
    /// Requests since, while there was no lease.
    requests: u64,
    since: Instant,
    /// Until then a request that asks is under way, or asking is no use.
    quiet_until: Instant,
}

impl Leases {
    /// Nothing is held yet.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { table: KeyTable::new(MAX_COUNTERS), metrics }
    }

    /// Spends the hits of `ask`, if what is held is enough for all of it. One ruling per claim,
    /// same order.
    pub(super) fn spend(&self, ask: &Ask, now: Instant) -> Option<Vec<Ruling>> {
        if ask.is_empty() || ask.records().iter().any(|asked| asked.traits.lease.is_none()) {
            return None;
        }
        let claims = &ask.group().claims;
        let mut spent = Vec::with_capacity(claims.len());
        for claim in claims {
            let Some(reading) = self.spend_one(claim, now) else {
                for (claim, (_, lease)) in claims.iter().zip(spent) {
                    self.unspend(claim, lease);
                }
                return None;
            };
            spent.push(reading);
        }
        self.metrics.store.leased_hits.inc_by(claims.iter().map(|claim| claim.hits.needed()).sum());
        Some(spent.into_iter().map(|(reading, _)| Ruling::from(reading)).collect())
    }

    /// Spends the hits of `claim`, if they are held; also says of which lease, by when it ends.
    fn spend_one(&self, claim: &Claim, now: Instant) -> Option<(Reading, Instant)> {
        let Hits::Take(hits) = claim.hits else { return None };
        let spend = |held: &mut Holding| {
            held.left = held.left.checked_sub(hits).filter(|_| now < held.until)?;
            let reading = Reading {
                passed: true,
                remaining: held.left + held.beside,
                over: 0,
                retry_after: Some(Duration::ZERO),
                reset_after: held.full_at - now,
                leased_until: None,
                at: Timestamp::EPOCH,
            };
            Some((reading, held.until))
        };
        self.table.with(&claim.key, &claim.limit, spend)?
    }

    /// Gives the hits of `claim` back to the lease that ends at `lease`. If that was reported as
    /// finished, or another has taken its place, they are stranded: nobody may spend them beside
    /// it.
    fn unspend(&self, claim: &Claim, lease: Instant) {
        let give_back = |held: &mut Holding| {
            if held.lease.is_some() && held.until == lease {
                held.left += claim.hits.needed();
            } else {
                self.metrics.store.stranded_hits.inc_by(claim.hits.needed());
            }
        };
        self.table.with(&claim.key, &claim.limit, give_back);
    }

    /// Lets the claims of `ask`, which is on its way to the store, ask for leases and report
    /// finished ones.
    pub(super) fn prepare(&self, ask: &mut Ask, now: Instant, deadline: Instant) {
        for (claim, traits) in ask.claims_mut() {
            if let Some(terms) = traits.lease
                && let Hits::Take(hits) = claim.hits
            {
                claim.lease = self.ask(claim, hits, terms, now, deadline).map(Box::new);
            }
        }
    }

    fn ask(
        &self,
        claim: &Claim,
        hits: u64,
        terms: LeaseTerms,
        now: Instant,
        deadline: Instant,
    ) -> Option<LeaseAsk> {
        let known = self.table.with(&claim.key, &claim.limit, |held| {
            let (ask, stranded) = held.ask(hits, terms, now, deadline);
            self.metrics.store.stranded_hits.inc_by(stranded);
            ask
        });
        known.unwrap_or_else(|| {
            self.table.put(&claim.key, &claim.limit, Holding::new(now), now);
            None
        })
    }

    /// Holds what was granted to `ask`, which was sent at `sent`, if its charge stands.
    pub(super) fn store_grants(&self, ask: &Ask, sent: Instant) {
        let admitted = ask.verdict() == Verdict::Admit;
        for part in &ask.group().parts {
            let passed = || ask.claims_of(part).all(|(_, asked)| asked.ruling().reading.passed);
            let stands = admitted && passed();
            for (claim, asked) in ask.claims_of(part) {
                if let (Some(wanted), Some(terms)) = (&claim.lease, asked.traits.lease) {
                    let reading = &asked.ruling().reading;
                    let granted = reading.leased_until.filter(|_| stands);
                    let store = |held: &mut Holding| {
                        held.store_grant(wanted, granted, reading, terms, sent);
                    };
                    self.table.with(&claim.key, &claim.limit, store);
                }
            }
        }
    }

    /// The time at which the bucket of a lease was to be full, as of its last grant; none: nothing
    /// is known of it.
    pub(super) fn full_at(&self, key: &Key, limit: &Limit) -> Option<Instant> {
        self.table.with(key, limit, |held| held.full_at)
    }

    /// Forgets what is held of `keys`, whose counters were emptied before `now`.
    pub(super) fn forget(&self, keys: &[Key], now: Instant) {
        for key in keys {
            self.table.remove(key, now);
        }
    }
}

impl Fleeting for Holding {
    fn ends(&self) -> Instant {
        self.since.max(self.until)
    }
}

impl Holding {
    const fn new(now: Instant) -> Self {
        Self {
            left: 0,
            until: now,
            lease: None,
            granted_at: now,
            beside: 0,
            full_at: now,
            want: DEMAND,
            requests: 1,
            since: now,
            quiet_until: now,
        }
    }

    /// The lease that a request to the store asks for, and the number of tokens that strands.
    fn ask(
        &mut self,
        hits: u64,
        terms: LeaseTerms,
        now: Instant,
        deadline: Instant,
    ) -> (Option<LeaseAsk>, u64) {
        if now.saturating_duration_since(self.since) > terms.ttl {
            (self.since, self.requests) = (now, 0);
        }
        self.requests += 1;
        // What is held is enough for this claim: the request goes to the store for another's sake.
        let enough = self.left >= hits && now < self.until;
        if enough || now < self.quiet_until {
            return (None, 0);
        }
        let finished = self.lease.take();
        let stranded = std::mem::take(&mut self.left);
        let in_demand = match finished {
            Some(lease) => self.learn(lease.tokens - stranded, lease.tokens, terms, now),
            None => self.requests >= DEMAND,
        };
        let tokens = self.want.max(hits).min(terms.most);
        let tokens = if in_demand && tokens >= hits { tokens } else { 0 };
        if tokens == 0 && finished.is_none() {
            return (None, 0);
        }
        self.quiet_until = deadline;
        (Some(LeaseAsk { tokens, most: terms.most, ttl: terms.ttl, finished }), stranded)
    }

    /// Sizes the next lease by the last one, of which `spent` were spent; whether there is demand
    /// for another.
    fn learn(&mut self, spent: u64, tokens: u64, terms: LeaseTerms, now: Instant) -> bool {
        let lasted = now.saturating_duration_since(self.granted_at);
        if lasted >= terms.ttl {
            self.want = spent.max(DEMAND);
        } else if lasted < terms.ttl / 2 {
            self.want = tokens.saturating_mul(2).clamp(DEMAND, terms.most.max(DEMAND));
        }
        spent >= DEMAND
    }

    fn store_grant(
        &mut self,
        asked: &LeaseAsk,
        granted: Option<Timestamp>,
        reading: &Reading,
        terms: LeaseTerms,
        sent: Instant,
    ) {
        self.quiet_until = sent;
        if let Some(until) = granted {
            self.lease = Some(Lease { tokens: asked.tokens, until });
            (self.left, self.until) = (asked.tokens, sent + terms.ttl);
            (self.granted_at, self.since, self.requests) = (sent, sent, 0);
            (self.beside, self.full_at) = (reading.remaining, sent + reading.reset_after);
        } else if asked.tokens > 0 {
            self.want = (asked.tokens / 2).max(DEMAND);
            if asked.tokens <= DEMAND {
                self.quiet_until = sent + terms.ttl;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Algorithm, Charge, Limit};

    #[test]
    fn tokens_go_back_to_their_own_lease_alone() {
        let leases = Leases::new(Arc::new(Metrics::new(0)));
        let algorithm = Algorithm::TokenBucket { burst: 100 };
        let limit = Limit::new(100, Duration::from_secs(1), algorithm, Charge::Admitted).unwrap();
        let key = Key::new(&b"k"[..]);
        let claim = Claim { key: key.clone(), limit, hits: Hits::Take(3), lease: None };
        let now = Instant::now();
        let hold = |second: u64| {
            let until = Timestamp::from_micros(second * 1_000_000);
            let lease = Some(Lease { tokens: 10, until });
            let ends = now + Duration::from_secs(second);
            let holding = Holding { left: 10, until: ends, lease, ..Holding::new(now) };
            leases.table.put(&key, &limit, holding, now);
        };
        let left = || leases.table.with(&key, &limit, |held| held.left).unwrap();
        hold(1);
        let (_, first) = leases.spend_one(&claim, now).unwrap();
        assert_eq!(left(), 7);
        leases.unspend(&claim, first);
        assert_eq!(left(), 10);
        let (_, first) = leases.spend_one(&claim, now).unwrap();
        hold(2);
        leases.spend_one(&claim, now).unwrap();
        leases.unspend(&claim, first);
        assert_eq!(
            left(),
            7,
            "the second lease has three tokens fewer, whatever became of the first"
        );
        assert_eq!(leases.metrics.store.stranded_hits.get(), 3);
    }
}
