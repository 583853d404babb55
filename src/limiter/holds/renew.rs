//! Renewals: a hold that lasts longer, under another handle.
//!
//! A renewal takes the guard of the handle before, in the same step in which it prolongs slots. So
//! each handle is settled once or renewed once, never both, and however often a hold is renewed, it
//! is settled once. A charge is in one handle at a time: a charge that was not renewed stays with
//! the handle before.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, timeout_at};

use super::changes::{Charges, guard, prefix};
use super::handle::{Handle, HandleKey, HeldClaim, micros};
use super::issue::ttl;
use super::plan::Ended;
use super::settle::Settlements;
use crate::domain::{Amendment, Change, Key, Limit, Settled, Settlement, Timestamp};
use crate::limiter::ask::Ask;
use crate::store::LimitStore;
use crate::telemetry::metrics::HoldState;

/// The longest life of a hold.
const LONGEST_MICROS: u64 = 24 * 3_600 * 1_000_000;

/// The outcome of a renewal.
#[derive(Debug)]
pub(super) struct Renewal {
    /// The hold of the charges that were renewed.
    pub(super) handle: Option<Handle>,
    /// The time that is left of it.
    pub(super) left: Duration,
    /// Every charge of the handle was renewed.
    pub(super) is_whole: bool,
    /// The store has answered about every charge.
    pub(super) is_answered: bool,
}

/// The charges on counters of one descriptor.
#[derive(Debug, Default)]
struct Part {
    of_store: Vec<Amendment>,
    of_share: Vec<Amendment>,
    claims: Vec<HeldClaim>,
    /// The latest end of a charge.
    until: Timestamp,
}

impl Part {
    /// Adds what prolongs a charge on `limit`, whose counter is `key`, until `renewed`.
    fn add(
        &mut self,
        handle: &Handle,
        mut charge: HeldClaim,
        (key, limit): (&Key, Limit),
        renewed: Timestamp,
    ) {
        self.until = self.until.max(renewed);
        if let Some(until) = end_of_slot(&charge, &limit)
            && let Some(id) = handle.id.of_claim(charge.position.into())
        {
            let amendment =
                Amendment { key: key.clone(), limit, change: Change::Renew { id, until, renewed } };
            let of = if charge.degraded { &mut self.of_share } else { &mut self.of_store };
            of.push(amendment);
            // The time from which on its `ttl` leads to its end, by which it is found.
            charge.at = until.max(renewed).minus_micros(limit.period_micros());
        }
        self.claims.push(charge);
    }
}

impl<S: LimitStore> Settlements<S> {
    /// Renews the charges that the claims of `ask` meet, if the store answers by `due`. `key` is to
    /// sign the new handle.
    pub(super) async fn renew(
        &self,
        ended: &Ended<'_>,
        ask: &Ask,
        key: &HandleKey,
        due: Instant,
    ) -> Renewal {
        let (handle, now) = (&ended.handle, self.shares.now());
        let (parts, mut is_whole) = self.parts(ended, ask, key, now);
        let sent = parts.into_iter().map(|(prefix, mut part)| {
            let amendments = std::mem::take(&mut part.of_store);
            let settlement = Settlement { guard: guard(handle, prefix), amendments };
            let outcome = timeout_at(due, self.store.settle(settlement));
            async move { (outcome.await, part) }
        });
        let (mut claims, mut until, mut is_answered) = (Vec::new(), handle.expires_at(), true);
        for (outcome, part) in join_all(sent).await {
            is_answered &= matches!(outcome, Ok(Ok(_)));
            if !matches!(outcome, Ok(Ok(Settled::Now))) {
                is_whole = false;
                continue;
            }
            self.holds.metrics.add(HoldState::Renewed, part.claims.len() as u64);
            until = until.max(part.until);
            claims.extend(part.claims);
            self.apply_to_shares(handle, part.of_share);
        }
        let ttl = Duration::from_millis(until.micros_since(handle.at).div_ceil(1_000));
        let renewals = handle.renewals.saturating_add(1);
        let renewed = Handle { ttl, renewals, claims, ..handle.clone() };
        let left = Duration::from_micros(renewed.expires_at().micros_since(now));
        let handle = (!renewed.claims.is_empty()).then_some(renewed);
        Renewal { handle, left, is_whole, is_answered }
    }

    /// The charges by the beginning of their keys, and true if these are all of the hold.
    fn parts(
        &self,
        ended: &Ended<'_>,
        ask: &Ask,
        key: &HandleKey,
        now: Timestamp,
    ) -> (BTreeMap<Vec<u8>, Part>, bool) {
        let handle = &ended.handle;
        let latest = handle.at.plus_micros(LONGEST_MICROS);
        let mut charges = Charges::of(handle);
        let (mut parts, mut is_whole) = (BTreeMap::<Vec<u8>, Part>::new(), true);
        for held in ask.held() {
            let Some((claim, _)) = ask.claim(held.claim) else { continue };
            let Some(charge) = charges.take(ended.key.counter(&claim.key)) else {
                self.holds.metrics.count(HoldState::Unmatched);
                is_whole = false;
                continue;
            };
            if end_of_slot(charge, &claim.limit).is_some_and(|until| until <= now) {
                is_whole = false;
                continue;
            }
            let renewed = now.plus_micros(micros(ttl(&claim.limit, held.terms.as_ref())));
            // It may not be the key that has signed the handle before.
            let charge = HeldClaim { counter: key.counter(&claim.key), ..*charge };
            let part = parts.entry(prefix(&claim.key)).or_default();
            part.add(handle, charge, (&claim.key, claim.limit), renewed.min(latest));
        }
        (parts, is_whole && charges.is_empty())
    }
}

/// The end of the slot that `charge` has taken, if `limit` has slots.
fn end_of_slot(charge: &HeldClaim, limit: &Limit) -> Option<Timestamp> {
    limit.is_concurrency().then(|| charge.at.plus_micros(limit.period_micros()))
}
