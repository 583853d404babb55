//! Amendments: changes of a counter outside of any decision.
//!
//! * A request that was charged in one place and then denied in another gives its hits back, with
//!   the time of its charge. No interval may admit more than if it had never been charged, so less
//!   is given back than was charged: of a bucket, not what may have refilled meanwhile; of a
//!   window, nothing that may have left it.
//! * A replica that decided by a share of its own tells the store what it admitted. That only ever
//!   charges, and stops at the capacity or at the debt that is allowed. A limit that settles books
//!   it as it [books](super::Hits::Book) hits.
//! * A request has cost more or less than it [held](super::hold) for it.
//!
//! An amendment needs no verdict and never denies. [`Counter::amend`](super::Counter::amend)
//! applies it; the script of the Redis store computes the same function (`61_amend.lua`).

use super::Timestamp;
use super::key::Key;
use super::limit::{Algorithm, Limit};

/// An amendment of one counter.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Amendment {
    /// The counter.
    pub key: Key,
    /// Its limit.
    pub limit: Limit,
    /// The change.
    pub change: Change,
}

/// The change that an amendment makes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Change {
    /// Gives back hits that this limit has charged, at most once.
    GiveBack {
        /// The hits.
        hits: u64,
        /// The time of the charge on the clock of the store.
        charged_at: Timestamp,
    },
    /// Charges hits that were admitted while the store was away.
    Tell(Told),
    /// Gives back the part of an estimate that a request did not cost, as if it had been charged
    /// what it cost at once.
    Return {
        /// The hits.
        hits: u64,
        /// The time of the charge on the clock of the store.
        charged_at: Timestamp,
    },
    /// Charges what a request cost beyond its estimate, whatever is left. It may overdraw the
    /// limit: a bucket up to its ceiling, a window up to 2^52 hits.
    Charge {
        /// The hits.
        hits: u64,
    },
    /// Ends a hold on a concurrency limit.
    Release {
        /// Its id.
        id: u64,
        /// The time at which it ends otherwise, unless it was renewed.
        until: Timestamp,
    },
    /// Ends the hold on a concurrency limit that ends first.
    ReleaseOldest,
    /// [`Return`](Self::Return) for the hold that [`ReleaseOldest`](Self::ReleaseOldest) has ended
    /// before in the same settlement; nothing if there was none.
    ReturnOldest {
        /// The hits.
        hits: u64,
    },
    /// [`Charge`](Self::Charge) if there was no hold for `ReleaseOldest` to end.
    ChargeWithoutOldest {
        /// The hits.
        hits: u64,
    },
    /// Prolongs a hold on a concurrency limit.
    Renew {
        /// Its id.
        id: u64,
        /// The time at which it ends otherwise.
        until: Timestamp,
        /// The time at which it ends from now on; an earlier one than it had changes nothing.
        renewed: Timestamp,
    },
}

/// Hits that were admitted elsewhere, as the algorithm counts them. Those of another algorithm than
/// that of the limit change nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Told {
    /// Of a token bucket.
    Bucket {
        /// The time in microseconds that the hits still take to refill.
        micros: u64,
    },
    /// Of a sliding window.
    Sliding {
        /// The hits.
        hits: u64,
        /// The age in microseconds of the newest. All of them count as old as it.
        age: u64,
    },
    /// Of a fixed window.
    Fixed {
        /// The hits.
        hits: u64,
        /// The end of their window.
        ends_at: Timestamp,
    },
}

impl Amendment {
    /// The hits in an amount that a store has [applied](super::Counter::amend), rounded down.
    pub fn hits_in(&self, amount: u64) -> u64 {
        match self.limit.algorithm() {
            Algorithm::TokenBucket { .. } => {
                let hits = u128::from(amount) * u128::from(self.limit.rate());
                (hits / u128::from(self.limit.period_micros())) as u64
            }
            Algorithm::SlidingWindow { .. } | Algorithm::FixedWindow | Algorithm::Concurrency => {
                amount
            }
        }
    }
}
