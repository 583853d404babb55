//! The changes that settle a hold, and their way to the store.
//!
//! A settlement takes effect once, so it is the one write that is sent again after a failure: until
//! the hold has ended. It outlives the call that brought it, because Envoy waits for no answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::runtime::Handle as Runtime;
use tokio::time::{Instant, sleep};

use super::Holds;
use super::handle::{Handle, HeldClaim};
use super::plan::Ended;
use crate::domain::{
    Amendment, Change, Claim, Guard, Hits, HoldId, Key, Limit, Settled, Settlement, Timestamp,
};
use crate::limiter::ask::Ask;
use crate::limiter::layers::failover::shares::Shares;
use crate::policy::{HoldTerms, OnUnknown};
use crate::store::{LimitStore, StoreError};

/// The most settlements under way in a process. More are lost: their holds end by themselves.
const MAX_UNDER_WAY: usize = 65_536;

/// The wait before a settlement is sent again. It doubles up to the longest.
const FIRST_WAIT: Duration = Duration::from_millis(20);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// The time in which a dropped call releases its slots.
const DROPPED_MICROS: u64 = 60_000_000;

/// Settled holds of a descriptor are kept in this many sets during a time to live.
const SLICES: u64 = 8;

/// Settles holds in the store of a core.
#[derive(Debug)]
pub(in crate::limiter) struct Settlements<S> {
    store: Arc<S>,
    shares: Arc<Shares>,
    holds: Arc<Holds>,
}

/// Settlements under way, in all cores.
static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);

/// A limit that held, by its counter.
pub(super) type Holding = (Key, Limit, Option<HoldTerms>);

impl<S: LimitStore> Settlements<S> {
    pub(in crate::limiter) fn new(store: Arc<S>, shares: Arc<Shares>, holds: Arc<Holds>) -> Self {
        Self { store, shares, holds }
    }

    /// Settles the end of a request. `ask` has the claims of its descriptors, `costs` by claim what
    /// its descriptor states.
    pub(in crate::limiter) fn settle(
        self: &Arc<Self>,
        ended: &Ended,
        ask: &Ask,
        costs: &[Option<u64>],
    ) {
        let handle = &ended.handle;
        let mut changes = Changes::default();
        for held in ask.held() {
            let Some((claim, _)) = ask.claim(held.claim) else { continue };
            let counter = ended.key.counter(&claim.key);
            let Some(charge) = handle.claims.iter().find(|known| known.counter == counter) else {
                self.holds.metrics.settled("unmatched");
                continue;
            };
            let stated = costs.get(held.claim).copied().flatten();
            let never_ran = (ended.attempts == Some(0)).then_some(0);
            let cost = stated.or(never_ran);
            if cost.is_none() && held.terms.is_some() {
                self.holds.metrics.settled("unknown_cost");
            }
            let holding = (claim.key.clone(), claim.limit, held.terms);
            changes.add(handle, charge, &holding, cost);
        }
        self.apply(handle, changes);
    }

    /// Settles a hold whose request got no answer: slots are released, and hits are settled as
    /// those of a request that does not say what it has cost.
    pub(super) fn unheard(self: &Arc<Self>, handle: &Handle, settled: &[Holding]) {
        self.holds.metrics.settled("self_settled");
        let mut changes = Changes::default();
        for (charge, holding) in handle.claims.iter().zip(settled) {
            changes.add(handle, charge, holding, None);
        }
        self.apply(handle, changes);
    }

    /// Releases the slots that a request may have taken whose call was dropped.
    pub(in crate::limiter) fn dropped(self: &Arc<Self>, id: HoldId, slots: Vec<(Key, Limit, u64)>) {
        let mut changes = Changes::default();
        let now = self.shares.now();
        for (key, limit, slot) in slots {
            let until = now.plus_micros(limit.period_micros());
            let change = Change::Release { id: slot, until };
            changes.of_store.entry(prefix(&key)).or_default().push(Amendment {
                key,
                limit,
                change,
            });
        }
        let end = now.plus_micros(DROPPED_MICROS);
        for (prefix, amendments) in changes.of_store {
            let key = Key::new([prefix, b":dropped".to_vec()].concat());
            let guard = Guard { key, id, expires_at: end, kept_until: end };
            self.send(Settlement { guard, amendments }, Instant::now() + LONGEST_WAIT);
        }
    }

    fn apply(self: &Arc<Self>, handle: &Handle, changes: Changes) {
        let Changes { of_store, of_share } = changes;
        let own = handle.process == self.holds.process;
        for (prefix, amendments) in of_share {
            // Elsewhere nothing is given back: the store never had these hits.
            if own {
                let guard = guard(handle, prefix);
                self.shares.settle_hold(&Settlement { guard, amendments });
            }
        }
        let lasts = Instant::now() + handle.ttl;
        for (prefix, amendments) in of_store {
            let guard = guard(handle, prefix);
            self.send(Settlement { guard, amendments }, lasts);
        }
    }

    /// Sends at once, ahead of decisions that come later; waits and repeats in a task.
    fn send(self: &Arc<Self>, settlement: Settlement, until: Instant) {
        let (store, copy) = (Arc::clone(&self.store), settlement.clone());
        let mut first = Box::pin(async move { store.settle(copy).await });
        let metrics = Arc::clone(&self.holds.metrics);
        let at_once = first.as_mut().now_or_never();
        if let Some(Ok(settled)) = at_once {
            metrics.settled(name(settled));
            return;
        }
        let Ok(runtime) = Runtime::try_current() else { return };
        if UNDER_WAY.fetch_add(1, Ordering::Relaxed) >= MAX_UNDER_WAY {
            UNDER_WAY.fetch_sub(1, Ordering::Relaxed);
            metrics.unsettled();
            return;
        }
        let this = Arc::clone(self);
        runtime.spawn(async move {
            let outcome = match at_once {
                Some(outcome) => outcome,
                None => first.await,
            };
            match this.repeat(outcome, settlement, until).await {
                Some(settled) => metrics.settled(name(settled)),
                None => metrics.unsettled(),
            }
            UNDER_WAY.fetch_sub(1, Ordering::Relaxed);
        });
    }

    async fn repeat(
        &self,
        mut outcome: Result<Settled, StoreError>,
        settlement: Settlement,
        until: Instant,
    ) -> Option<Settled> {
        let mut wait = FIRST_WAIT;
        loop {
            if let Ok(settled) = outcome {
                return Some(settled);
            }
            if Instant::now() + wait > until {
                return None;
            }
            sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
            outcome = self.store.settle(settlement.clone()).await;
        }
    }
}

/// Releases the slots that a request may have taken, if its call is dropped before it has an
/// answer.
pub(in crate::limiter) struct Dropped<S: LimitStore> {
    settlements: Arc<Settlements<S>>,
    id: HoldId,
    slots: Vec<(Key, Limit, u64)>,
}

impl<S: LimitStore> Dropped<S> {
    /// Watches over the claims of `ask`, whose hold has this id.
    pub(in crate::limiter) fn new(
        settlements: &Arc<Settlements<S>>,
        id: HoldId,
        ask: &Ask,
    ) -> Self {
        let slot = |claim: &Claim| match claim.hits {
            Hits::Hold(slot) => Some((claim.key.clone(), claim.limit, slot)),
            _ => None,
        };
        let slots = ask.group().claims.iter().filter_map(slot).collect();
        Self { settlements: Arc::clone(settlements), id, slots }
    }

    /// The request has an answer.
    pub(in crate::limiter) fn heard(mut self) {
        self.slots.clear();
    }
}

impl<S: LimitStore> Drop for Dropped<S> {
    fn drop(&mut self) {
        if !self.slots.is_empty() {
            self.settlements.dropped(self.id, std::mem::take(&mut self.slots));
        }
    }
}

/// The number of settlements under way.
pub fn under_way() -> usize {
    UNDER_WAY.load(Ordering::Relaxed)
}

/// The changes of one hold.
#[derive(Debug, Default)]
struct Changes {
    /// By the beginning of their keys, which is that of one descriptor and slot.
    of_store: BTreeMap<Vec<u8>, Vec<Amendment>>,
    /// The same of what this process has decided without the store.
    of_share: BTreeMap<Vec<u8>, Vec<Amendment>>,
}

impl Changes {
    /// Adds the end of `charge`. `cost`: what its request has cost; none: it is not known.
    fn add(
        &mut self,
        handle: &Handle,
        charge: &HeldClaim,
        (key, limit, terms): &Holding,
        cost: Option<u64>,
    ) {
        // Also without a change: the hold is over, and a later settlement is a second one.
        let of_slot = self.of_store.entry(prefix(key)).or_default();
        let change = change(handle, charge, limit, terms.as_ref(), cost);
        let Some(change) = change else { return };
        let amendment = Amendment { key: key.clone(), limit: *limit, change };
        if !charge.degraded {
            of_slot.push(amendment);
        } else if let Change::Charge { .. } = change {
            // The store never had the estimate, and is told what was beyond.
            of_slot.push(amendment);
        } else {
            self.of_share.entry(prefix(key)).or_default().push(amendment);
        }
    }
}

fn change(
    handle: &Handle,
    charge: &HeldClaim,
    limit: &Limit,
    terms: Option<&HoldTerms>,
    cost: Option<u64>,
) -> Option<Change> {
    if limit.is_concurrency() {
        let id = handle.id.of_claim(charge.position.into())?;
        let until = charge.at.plus_micros(limit.period_micros());
        return Some(Change::Release { id, until });
    }
    let unknown = |terms: &HoldTerms| match terms.on_unknown {
        OnUnknown::Keep => charge.hits,
        OnUnknown::Release | OnUnknown::Cost(_) => terms.unknown_cost(charge.hits),
    };
    let cost = cost.or_else(|| terms.map(unknown))?;
    Change::settle(charge.hits, cost, charge.at)
}

fn guard(handle: &Handle, prefix: Vec<u8>) -> Guard {
    let ttl = u64::try_from(handle.ttl.as_micros()).unwrap_or(u64::MAX).max(1);
    let length = (ttl / SLICES).max(1);
    let slice = handle.at.as_micros() / length;
    let key = Key::new([prefix, format!(":settled:{slice}").into_bytes()].concat());
    let kept_until = Timestamp::from_micros((slice + 1).saturating_mul(length)).plus_micros(ttl);
    Guard { key, id: handle.id, expires_at: handle.expires_at(), kept_until }
}

/// The beginning of a key up to the end of its hash tag.
fn prefix(key: &Key) -> Vec<u8> {
    let bytes = key.as_bytes();
    let end = bytes.iter().position(|byte| *byte == b'}').map_or(bytes.len(), |at| at + 1);
    bytes.get(..end).unwrap_or(bytes).to_vec()
}

const fn name(settled: Settled) -> &'static str {
    match settled {
        Settled::Now => "settled",
        Settled::Again => "again",
        Settled::Late => "late",
        Settled::Unguarded => "unguarded",
    }
}
