//! Holds: what a request has reserved, settled once by what it has cost.
//!
//! An admitted request is charged an estimate. When its cost is known, the difference is given
//! back as of the time of the charge, or charged now. A settlement that is lost, late, or delivered
//! twice never admits more: the hits of the estimate leave by themselves, and a [`Guard`] lets each
//! settlement take effect once.
//!
//! Promise: with every cost counted from its admission, a window never holds more than its limit,
//! and a token bucket admits at most burst + rate * t plus what requests admitted before that time
//! gave back during it. To either come the amounts by which costs exceed their estimates, of
//! requests that were not settled when the last one was admitted.

use super::Timestamp;
use super::amend::{Amendment, Change};
use super::key::Key;

/// The id of a hold: 53 bits, which a Lua double holds exactly. The lowest seven say which claim of
/// its request it is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct HoldId(u64);

impl HoldId {
    /// The bits of an id.
    pub const BITS: u32 = 53;

    /// The claims that can be told apart.
    pub const MAX_CLAIMS: usize = 1 << 7;

    /// The id made of these random bits.
    pub const fn from_random(bits: u64) -> Self {
        Self(bits & ((1 << Self::BITS) - 1) & !(Self::MAX_CLAIMS as u64 - 1))
    }

    /// The id with this number; `None` if it has more bits or is that of a claim.
    pub const fn from_number(number: u64) -> Option<Self> {
        let id = Self::from_random(number);
        if id.0 == number { Some(id) } else { None }
    }

    /// The id as a number.
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The id of the slot that the claim at this position takes; `None` if there are more claims
    /// than can be told apart.
    pub const fn of_claim(self, position: usize) -> Option<u64> {
        if position < Self::MAX_CLAIMS { Some(self.0 + position as u64) } else { None }
    }
}

/// Lets a settlement take effect once, and only while its hold lasts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Guard {
    /// The set of settled holds, in the slot of the counters.
    pub key: Key,
    /// The hold.
    pub id: HoldId,
    /// The end of the hold.
    pub expires_at: Timestamp,
    /// The time until which the set is kept.
    pub kept_until: Timestamp,
}

/// The amendments that settle a hold on counters of one descriptor.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settlement {
    /// Lets it take effect once.
    pub guard: Guard,
    /// The changes; none: the hold cost what was estimated, and is over.
    pub amendments: Vec<Amendment>,
}

/// The outcome of a settlement.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Settled {
    /// It took effect.
    Now,
    /// The hold was settled before.
    Again,
    /// The hold had ended by itself.
    Late,
    /// It took effect, but gave nothing back: there was no room to remember it.
    Unguarded,
}

impl Change {
    /// True if it gives back what a hold did not cost.
    pub const fn gives_back(&self) -> bool {
        matches!(self, Self::Return { .. } | Self::ReturnOldest { .. })
    }

    /// The change that settles a charge of `estimate` hits at `charged_at` which has cost `cost`.
    /// `None`: it cost what was estimated.
    pub const fn settle(estimate: u64, cost: u64, charged_at: Timestamp) -> Option<Self> {
        if cost < estimate {
            Some(Self::Return { hits: estimate - cost, charged_at })
        } else if cost > estimate {
            Some(Self::Charge { hits: cost - estimate })
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_claims_are_apart_and_exact_in_a_double() {
        let id = HoldId::from_random(u64::MAX);
        assert_eq!(HoldId::from_number(id.number()), Some(id));
        assert_eq!(HoldId::from_number(id.number() + 1), None);
        assert_eq!(id.of_claim(HoldId::MAX_CLAIMS), None);
        let last = id.of_claim(HoldId::MAX_CLAIMS - 1).unwrap();
        assert!(last < 1 << HoldId::BITS && last as f64 as u64 == last);
        assert_eq!(HoldId::from_random(last), id);
    }
}
