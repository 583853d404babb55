//! The amendments of a settlement in their order: what one finds, others after it depend on. Twin:
//! the loop of `62_settle.lua`.

use super::Timestamp;
use super::amend::Change;
use super::counter::Counter;
use super::limit::Limit;

/// The amendments of a settlement, applied one after the other.
#[derive(Debug, Default)]
pub struct Sequence {
    oldest: Oldest,
}

/// The oldest hold, for the amendments after the one that was to end it.
#[derive(Clone, Copy, Debug, Default)]
enum Oldest {
    /// There was no such amendment.
    #[default]
    Unasked,
    /// There was no hold.
    Missing,
    /// It has ended; it was charged at this time.
    Ended(Timestamp),
}

impl Sequence {
    /// Applies the next one. Returns its [amount](Counter::amend).
    pub fn amend(
        &mut self,
        counter: &mut Counter,
        limit: &Limit,
        change: &Change,
        now: Timestamp,
    ) -> u64 {
        let change = match (*change, self.oldest) {
            (Change::ReleaseOldest, _) => {
                let charged_at = counter.oldest_hold(limit, now);
                self.oldest = charged_at.map_or(Oldest::Missing, Oldest::Ended);
                Change::ReleaseOldest
            }
            (Change::ReturnOldest { hits }, Oldest::Ended(charged_at)) => {
                Change::Return { hits, charged_at }
            }
            (Change::ChargeWithoutOldest { hits }, Oldest::Missing) => Change::Charge { hits },
            (Change::ReturnOldest { .. } | Change::ChargeWithoutOldest { .. }, _) => return 0,
            (change, _) => change,
        };
        counter.amend(limit, &change, now)
    }
}
