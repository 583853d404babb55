//! The changes that settle a hold, and the guards that let each settlement take effect once.

use std::collections::BTreeMap;

use super::handle::{Handle, HeldClaim, micros};
use crate::domain::{Amendment, Change, Guard, Key, Limit, Timestamp};
use crate::policy::{HoldTerms, OnUnknown};

/// Settled holds of a descriptor are kept in this many sets during a time to live.
const SLICES: u64 = 8;

/// A limit that held, by its counter.
pub(super) type Holding = (Key, Limit, Option<HoldTerms>);

/// The charges of a hold that no claim has met yet. Descriptors may share a counter, and then each
/// ends a charge of its own.
pub(super) struct Charges<'a>(Vec<&'a HeldClaim>);

impl<'a> Charges<'a> {
    /// All charges of `handle`.
    pub(super) fn of(handle: &'a Handle) -> Self {
        Self(handle.claims.iter().collect())
    }

    /// The first that is left on the counter with this fingerprint.
    pub(super) fn take(&mut self, counter: u64) -> Option<&'a HeldClaim> {
        let at = self.0.iter().position(|charge| charge.counter == counter)?;
        Some(self.0.remove(at))
    }

    /// True if none is left.
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The changes of one hold.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// By the beginning of their keys, which is that of one descriptor and slot.
    pub(super) of_store: BTreeMap<Vec<u8>, OfSlot>,
    pub(super) of_share: Vec<Amendment>,
}

/// The changes of the charges of one descriptor.
#[derive(Debug, Default)]
pub(super) struct OfSlot {
    /// The number of charges that they settle.
    pub(super) charges: u64,
    pub(super) amendments: Vec<Amendment>,
}

impl Changes {
    /// Adds the end of `charge`. `cost`: what its request has cost; none: it is not known.
    pub(super) fn add(
        &mut self,
        handle: &Handle,
        charge: &HeldClaim,
        (key, limit, terms): &Holding,
        cost: Option<u64>,
    ) {
        // Also without a change: the hold is over, and a later settlement is a second one.
        let OfSlot { charges, amendments } = self.of_store.entry(prefix(key)).or_default();
        *charges += 1;
        let change = change(handle, charge, limit, terms.as_ref(), cost);
        let Some(change) = change else { return };
        let amendment = Amendment { key: key.clone(), limit: *limit, change };
        if !charge.degraded {
            amendments.push(amendment);
        } else if let Change::Charge { .. } = change {
            // The store never had the estimate, and is told what was beyond.
            amendments.push(amendment);
        } else {
            self.of_share.push(amendment);
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

/// The guard of one handle on the counters that begin with `prefix`. That of a renewed handle is
/// another one, in a set of its own: the guard before was taken when it was renewed.
pub(super) fn guard(handle: &Handle, prefix: Vec<u8>) -> Guard {
    let (id, expires_at) = (handle.id, handle.expires_at());
    if handle.renewals > 0 {
        let name = format!(":settled:{}:{}", id.number(), handle.renewals);
        let key = Key::new([prefix, name.into_bytes()].concat());
        return Guard { key, id, expires_at, kept_until: expires_at };
    }
    let ttl = micros(handle.ttl).max(1);
    let length = (ttl / SLICES).max(1);
    let slice = handle.at.as_micros() / length;
    let key = Key::new([prefix, format!(":settled:{slice}").into_bytes()].concat());
    let kept_until = Timestamp::from_micros((slice + 1).saturating_mul(length)).plus_micros(ttl);
    Guard { key, id, expires_at, kept_until }
}

/// The beginning of a key up to the end of its hash tag.
pub(super) fn prefix(key: &Key) -> Vec<u8> {
    let bytes = key.as_bytes();
    let end = bytes.iter().position(|byte| *byte == b'}').map_or(bytes.len(), |at| at + 1);
    bytes.get(..end).unwrap_or(bytes).to_vec()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::HoldId;

    fn handle(ttl: Duration, renewals: u32) -> Handle {
        let at = Timestamp::from_micros(1_795_000_000_123_456);
        let id = HoldId::from_random(7 << 7);
        Handle { id, at, ttl, renewals, process: 1, claims: Vec::new(), reports: Vec::new() }
    }

    #[test]
    fn each_handle_of_a_hold_has_a_guard_of_its_own_that_outlives_it() {
        let ttls = [1, 1_001, 600_000, 86_400_000].map(Duration::from_millis);
        let handles = ttls.into_iter().flat_map(|ttl| [0, 1, 2].map(|n| handle(ttl, n)));
        for one in handles.clone() {
            let its = guard(&one, b"{p}".to_vec());
            assert!(its.kept_until >= one.expires_at() && its.expires_at == one.expires_at());
            for other in handles.clone().filter(|other| other.renewals != one.renewals) {
                assert_ne!(guard(&other, b"{p}".to_vec()).key, its.key);
            }
        }
    }

    #[test]
    fn charges_of_one_counter_are_taken_one_by_one() {
        let claim = |counter, hits| {
            let at = Timestamp::EPOCH;
            HeldClaim { counter, degraded: false, hits, at, position: 0 }
        };
        let claims = vec![claim(1, 9), claim(2, 5), claim(1, 1)];
        let handle = Handle { claims, ..handle(Duration::from_secs(1), 0) };
        let mut charges = Charges::of(&handle);
        let mut take = |counter| charges.take(counter).map(|charge| charge.hits);
        assert_eq!([take(1), take(1), take(1)], [Some(9), Some(1), None]);
        assert!(!charges.is_empty());
        assert_eq!(charges.take(2).map(|charge| charge.hits), Some(5));
        assert!(charges.is_empty());
    }
}
