//! Holds without a handle, for control planes that peek before a request and report its cost after.
//!
//! A peek takes the estimate, and a slot beside the counter that nothing limits. A report ends the
//! slot that ends first, and settles its estimate by the cost; without one it is charged in full.
//! A report that is lost leaves the estimate, as a settlement that is lost does.

use std::sync::Arc;

use tokio::time::Instant;

use super::changes::prefix;
use super::handle::micros;
use super::settle::{Counted, Settlements};
use crate::domain::{
    Algorithm, Amendment, Change, Charge, Claim, Guard, HoldId, Key, Limit, Settlement, Timestamp,
};
use crate::limiter::ask::{Ask, Reported};
use crate::policy::HoldTerms;
use crate::store::LimitStore;
use crate::telemetry::metrics::HoldState;

/// The counter of the holds on the counter `key`, and its limit: any number for the time to live.
pub(in crate::limiter) fn slots(key: &Key, terms: &HoldTerms) -> Option<(Key, Limit)> {
    let key = Key::new([key.as_bytes(), b":out"].concat());
    let limit = Limit::new(u32::MAX, terms.ttl, Algorithm::Concurrency, Charge::Admitted);
    Some((key, limit.ok()?))
}

impl<S: LimitStore> Settlements<S> {
    /// Ends the oldest hold for each report of `ask`.
    pub(in crate::limiter) fn end_oldest(self: &Arc<Self>, ask: &Ask) {
        for Reported { claim, terms, cost } in ask.reported() {
            let Some((claim, _)) = ask.claim(*claim) else { continue };
            if let Some(settlement) = oldest(claim, terms, *cost, self.now()) {
                let counted = Counted { charges: 1, state: HoldState::Settled };
                drop(self.send(settlement, Instant::now() + terms.ttl, counted));
            }
        }
    }
}

/// The end of the oldest hold on the counter of `claim` by this cost, which takes effect once
/// however often it is sent.
fn oldest(claim: &Claim, terms: &HoldTerms, cost: u64, now: Timestamp) -> Option<Settlement> {
    let (key, limit) = slots(&claim.key, terms)?;
    let amend = |change| Amendment { key: claim.key.clone(), limit: claim.limit, change };
    let estimate = terms.max;
    let [first, second] = if cost < estimate {
        let back = Change::ReturnOldest { hits: estimate - cost };
        [back, Change::ChargeWithoutOldest { hits: cost }]
    } else {
        let beyond = Change::Charge { hits: cost - estimate };
        [beyond, Change::ChargeWithoutOldest { hits: estimate }]
    };
    let slot = Amendment { key, limit, change: Change::ReleaseOldest };
    let length = micros(terms.ttl).max(1);
    let slice = now.as_micros() / length;
    let name = format!(":reported:{slice}").into_bytes();
    let guard = Guard {
        key: Key::new([prefix(&claim.key), name].concat()),
        id: HoldId::from_random(fastrand::u64(..)),
        expires_at: now.plus_micros(length),
        kept_until: Timestamp::from_micros((slice + 2).saturating_mul(length)),
    };
    Some(Settlement { guard, amendments: vec![slot, amend(first), amend(second)] })
}
