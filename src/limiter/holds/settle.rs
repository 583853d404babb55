//! The settlements of holds, and their way to the store.
//!
//! A settlement takes effect once, so it is the one write that is sent again after a failure: until
//! the hold has ended. It outlives the call that brought it, because Envoy waits for no answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::runtime::Handle as Runtime;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};

use super::Holds;
use super::changes::{Changes, Charges, Holding, OfSlot, guard, prefix};
use super::handle::Handle;
use super::plan::Ended;
use crate::domain::{
    Amendment, Change, Claim, Guard, Hits, HoldId, Key, Limit, Settled, Settlement, Timestamp,
};
use crate::limiter::ask::Ask;
use crate::limiter::layers::failover::shares::Shares;
use crate::store::{LimitStore, StoreError};
use crate::telemetry::metrics::{HoldMetrics, HoldState};

/// The most settlements under way in a process. More are lost: their holds end by themselves.
const MAX_UNDER_WAY: i64 = 65_536;

/// The wait before a settlement is sent again. It doubles up to the longest.
const FIRST_WAIT: Duration = Duration::from_millis(20);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// The time in which a dropped call releases its slots.
const DROPPED_MICROS: u64 = 60_000_000;

/// Settles holds in the store of a core.
#[derive(Debug)]
pub(in crate::limiter) struct Settlements<S> {
    pub(super) store: Arc<S>,
    pub(super) shares: Arc<Shares>,
    pub(super) holds: Arc<Holds>,
}

impl<S: LimitStore> Settlements<S> {
    pub(in crate::limiter) fn new(store: Arc<S>, shares: Arc<Shares>, holds: Arc<Holds>) -> Self {
        Self { store, shares, holds }
    }

    /// The time of the store, as far as this process knows it.
    pub(in crate::limiter) fn now(&self) -> Timestamp {
        self.shares.now()
    }

    /// Settles the end of a request. `ask` has the claims of its descriptors, `costs` by claim what
    /// the request has cost, if that is known. Returns what was sent to the store; nothing: no
    /// counter is one of the hold.
    pub(in crate::limiter) fn settle(
        self: &Arc<Self>,
        ended: &Ended<'_>,
        ask: &Ask,
        costs: &[Option<u64>],
    ) -> Vec<Sent> {
        let handle = &ended.handle;
        let mut charges = Charges::of(handle);
        let mut changes = Changes::default();
        for held in ask.held() {
            let Some((claim, _)) = ask.claim(held.claim) else { continue };
            let counter = ended.key.counter(&claim.key);
            let Some(charge) = charges.take(counter) else {
                self.holds.metrics.count(HoldState::Unmatched);
                continue;
            };
            let cost = costs.get(held.claim).copied().flatten();
            if cost.is_none() && held.terms.is_some() {
                self.holds.metrics.count(HoldState::UnknownCost);
            }
            let holding = (claim.key.clone(), claim.limit, held.terms);
            changes.add(handle, charge, &holding, cost);
        }
        self.apply(handle, changes, HoldState::Settled)
    }

    /// Settles a hold whose request got no answer: slots are released, and hits are settled as
    /// those of a request that does not say what it has cost.
    pub(super) fn unheard(self: &Arc<Self>, handle: &Handle, settled: &[Holding]) {
        let mut changes = Changes::default();
        for (charge, holding) in handle.claims.iter().zip(settled) {
            changes.add(handle, charge, holding, None);
        }
        drop(self.apply(handle, changes, HoldState::SelfSettled));
    }

    /// Releases the slots that a request may have taken whose call was dropped.
    pub(in crate::limiter) fn dropped(self: &Arc<Self>, id: HoldId, slots: Vec<(Key, Limit, u64)>) {
        let mut changes = Changes::default();
        let now = self.shares.now();
        for (key, limit, slot) in slots {
            let until = now.plus_micros(limit.period_micros());
            let change = Change::Release { id: slot, until };
            let of_slot = changes.of_store.entry(prefix(&key)).or_default();
            of_slot.amendments.push(Amendment { key, limit, change });
        }
        let end = now.plus_micros(DROPPED_MICROS);
        for (prefix, OfSlot { amendments, .. }) in changes.of_store {
            let key = Key::new([prefix, b":dropped".to_vec()].concat());
            let guard = Guard { key, id, expires_at: end, kept_until: end };
            let until = Instant::now() + LONGEST_WAIT;
            // Perhaps nothing was taken.
            drop(self.send(Settlement { guard, amendments }, until, Counted::NOTHING));
        }
    }

    /// Applies `changes`. Charges that they settle count as `state`.
    fn apply(self: &Arc<Self>, handle: &Handle, changes: Changes, state: HoldState) -> Vec<Sent> {
        let Changes { of_store, of_share } = changes;
        self.apply_to_shares(handle, of_share);
        let lasts = Instant::now() + handle.ttl;
        let send = |(prefix, OfSlot { charges, amendments })| {
            let guard = guard(handle, prefix);
            self.send(Settlement { guard, amendments }, lasts, Counted { charges, state })
        };
        of_store.into_iter().map(send).collect()
    }

    /// Applies the changes of what this process has decided by its shares.
    pub(super) fn apply_to_shares(&self, handle: &Handle, amendments: Vec<Amendment>) {
        // Elsewhere nothing is given back: the store never had these hits.
        if handle.process != self.holds.process {
            return;
        }
        let mut of_prefix = BTreeMap::<Vec<u8>, Vec<Amendment>>::new();
        for amendment in amendments {
            of_prefix.entry(prefix(&amendment.key)).or_default().push(amendment);
        }
        for (prefix, amendments) in of_prefix {
            let guard = guard(handle, prefix);
            self.shares.settle_hold(&Settlement { guard, amendments });
        }
    }

    /// Sends at once, ahead of decisions that come later; waits and repeats in a task.
    pub(super) fn send(
        self: &Arc<Self>,
        settlement: Settlement,
        until: Instant,
        counted: Counted,
    ) -> Sent {
        let (store, copy) = (Arc::clone(&self.store), settlement.clone());
        let mut first = Box::pin(async move { store.settle(copy).await });
        let metrics = Arc::clone(&self.holds.metrics);
        let expired = expired_slots(&settlement, self.shares.now());
        let at_once = first.as_mut().now_or_never();
        if let Some(Ok(settled)) = at_once {
            counted.count(&metrics, settled, expired);
            return Sent::Done(Some(settled));
        }
        let Ok(runtime) = Runtime::try_current() else { return Sent::Done(None) };
        if metrics.queue.get() >= MAX_UNDER_WAY {
            metrics.unsettled();
            return Sent::Done(None);
        }
        let under_way = metrics.queue.hold();
        let this = Arc::clone(self);
        Sent::UnderWay(runtime.spawn(async move {
            let outcome = match at_once {
                Some(outcome) => outcome,
                None => first.await,
            };
            let settled = this.repeat(outcome, settlement, until).await;
            match settled {
                Some(settled) => counted.count(&metrics, settled, expired),
                None => metrics.unsettled(),
            }
            drop(under_way);
            settled
        }))
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

/// A settlement on its way. Dropped, it goes on.
#[derive(Debug)]
pub(in crate::limiter) enum Sent {
    /// The store has answered; `None`: it will not be asked any more.
    Done(Option<Settled>),
    /// It is sent until the store answers, or its hold ends.
    UnderWay(JoinHandle<Option<Settled>>),
}

impl Sent {
    /// The outcome, once there is one.
    pub(in crate::limiter) async fn outcome(self) -> Option<Settled> {
        match self {
            Self::Done(outcome) => outcome,
            Self::UnderWay(task) => task.await.ok()?,
        }
    }

    /// The outcome, if the store answers by `due`.
    pub(super) async fn by(self, due: Instant) -> Option<Settled> {
        match self {
            Self::Done(outcome) => outcome,
            Self::UnderWay(task) => timeout_at(due, task).await.ok()?.ok()?,
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

/// The slots that `settlement` releases and that have ended by themselves at `now`.
fn expired_slots(settlement: &Settlement, now: Timestamp) -> u64 {
    let has_ended = |it: &&Amendment| match it.change {
        Change::Release { until, .. } => until <= now,
        _ => false,
    };
    settlement.amendments.iter().filter(has_ended).count() as u64
}

/// The charges that a settlement settles, as metrics count them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counted {
    pub(super) charges: u64,
    /// The state of those that it settles.
    pub(super) state: HoldState,
}

impl Counted {
    const NOTHING: Self = Self { charges: 0, state: HoldState::SelfSettled };

    /// Counts a settlement that releases so many slots that have ended.
    fn count(self, metrics: &HoldMetrics, settled: Settled, expired: u64) {
        let state = match settled {
            Settled::Now => self.state,
            Settled::Again => HoldState::Again,
            Settled::Late => HoldState::Late,
            Settled::Unguarded => HoldState::Unguarded,
        };
        metrics.add(state, self.charges);
        if settled != Settled::Again && expired > 0 {
            metrics.expired(expired);
        }
    }
}
