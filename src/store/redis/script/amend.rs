//! Amendments as the arguments of one call of the amending script, and its reply.

use super::arguments::Arguments;
use super::encoded::{EncodedLimit, number};
use super::layout::{self, Answer as _, Record as _};
use super::reply::Reply;
use crate::domain::limit::Span;
use crate::domain::{
    Algorithm, Amendment, Change, SATURATION, Settled, Settlement, Timestamp, Told,
};
use crate::store::StoreError;

/// The most amendments of one call. The script takes about 6 microseconds for each.
pub const MAX_AMENDMENTS: usize = 64;

/// Amendments that are applied by one call, one after the other. It is never sent twice: each may
/// be applied at most once.
#[derive(Debug, Default)]
pub struct AmendFrame {
    arguments: Arguments,
    /// The number of amendments and guards.
    amendments: usize,
}

impl AmendFrame {
    /// Adds an amendment. Returns false if there are [`MAX_AMENDMENTS`] already.
    pub fn push(&mut self, amendment: &Amendment) -> bool {
        if self.amendments >= MAX_AMENDMENTS {
            return false;
        }
        self.amendments += 1;
        self.put(amendment);
        true
    }

    /// True if [`MAX_AMENDMENTS`] leave room for `settlement`.
    pub fn has_room_for(&self, settlement: &Settlement) -> bool {
        self.amendments + 1 + settlement.amendments.len() <= MAX_AMENDMENTS
    }

    /// Adds a settlement: its guard, and what that guards.
    pub fn settle(&mut self, Settlement { guard, amendments }: &Settlement) {
        self.amendments += 1 + amendments.len();
        // So few have a number.
        let slot = self.arguments.number_of(&guard.key).unwrap_or_default();
        let limit = u16::try_from(amendments.len()).unwrap_or(u16::MAX);
        let records = &mut self.arguments.records;
        layout::AmendmentHead { algorithm: layout::GUARD, slot, limit, change: 0 }.write(records);
        let body = layout::GuardBody {
            id: guard.id.number(),
            expires_at: guard.expires_at.as_micros(),
            kept_until: guard.kept_until.as_micros(),
        };
        body.write(records);
        for amendment in amendments {
            self.put(amendment);
        }
    }

    fn put(&mut self, amendment: &Amendment) {
        let Amendment { key, limit, change } = amendment;
        // So few have numbers; a blocked limit has no counter.
        let numbers = if limit.is_blocked() {
            None
        } else {
            self.arguments.numbers_of(key, &EncodedLimit::new(limit)).ok()
        };
        let algorithm = numbers.map_or(layout::BLOCKED, |_| number(limit));
        let (slot, limit_number) = numbers.unwrap_or_default();
        let change_number = match change {
            Change::GiveBack { .. } => layout::GIVE_BACK,
            Change::Tell(_) if limit.settles() => layout::TELL_BOOKED,
            Change::Tell(_) => layout::TELL,
            Change::Return { .. } => layout::RETURN,
            Change::Charge { .. } => layout::CHARGE,
            Change::Release { .. } => layout::RELEASE,
            Change::Renew { .. } => layout::RENEW,
            Change::ReleaseOldest => layout::RELEASE_OLDEST,
            Change::ReturnOldest { .. } => layout::RETURN_OLDEST,
            Change::ChargeWithoutOldest { .. } => layout::CHARGE_WITHOUT_OLDEST,
        };
        let records = &mut self.arguments.records;
        layout::AmendmentHead { algorithm, slot, limit: limit_number, change: change_number }
            .write(records);
        match limit.algorithm() {
            _ if numbers.is_none() => {}
            Algorithm::TokenBucket { .. } => {
                let (cost, at) = cost(amendment);
                layout::BucketAmendment { cost, at: at.as_micros() }.write(records);
            }
            Algorithm::Concurrency => slot_of(change).write(records),
            algorithm => {
                let (hits, at) = hits(algorithm, change);
                layout::WindowAmendment { hits: hits.min(SATURATION), at }.write(records);
            }
        }
    }

    /// The number of amendments and guards.
    pub const fn len(&self) -> usize {
        self.amendments
    }

    /// True if there are no amendments.
    pub const fn is_empty(&self) -> bool {
        self.amendments == 0
    }

    /// The distinct keys of the counters, in the order of their slots.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.arguments.keys()
    }

    /// The amendments and their limits as the script reads them.
    pub fn args(&self) -> [&[u8]; 2] {
        self.arguments.args()
    }

    /// Writes the command `command`, EVALSHA or EVAL, which runs `script`, to `out`.
    pub fn write(&self, command: &[u8], script: &[u8], out: &mut Vec<u8>) {
        self.arguments.write(command, script, out);
    }

    /// The amounts that the script has applied, by its list of integers: one per amendment, in the
    /// same order. [`Amendment::hits_in`] makes hits of them.
    ///
    /// # Errors
    /// [`StoreError::Protocol`] for a list of another length, or with negative numbers.
    pub fn amounts(&self, integers: Vec<i64>) -> Result<Vec<u64>, StoreError> {
        let mut reply = Reply::new(integers)?;
        let is_whole = reply.is_of(&[self.amendments]);
        let amounts = reply.next_group(self.amendments);
        let mut amounts = amounts.iter().map_while(|amount| u64::try_from(*amount).ok());
        let mut read = || layout::AmendmentAnswer::read(&mut amounts).map(|answer| answer.amount);
        let amounts: Vec<u64> = std::iter::from_fn(&mut read).collect();
        if is_whole && amounts.len() == self.amendments {
            Ok(amounts)
        } else {
            Err(StoreError::Protocol("no amount for each amendment".to_owned()))
        }
    }
}

/// The span that the amendment of a bucket gives back or charges, and the time of its charge.
fn cost(Amendment { limit, change, .. }: &Amendment) -> (Span, Timestamp) {
    match *change {
        Change::GiveBack { hits, charged_at } | Change::Return { hits, charged_at } => {
            (limit.cost(hits), charged_at)
        }
        Change::Charge { hits }
        | Change::ReturnOldest { hits }
        | Change::ChargeWithoutOldest { hits } => (limit.cost(hits), Timestamp::EPOCH),
        Change::Tell(Told::Bucket { micros }) => {
            (Span { micros: micros.min(SATURATION), remainder: 0 }, Timestamp::EPOCH)
        }
        Change::Tell(_) | Change::Release { .. } | Change::ReleaseOldest | Change::Renew { .. } => {
            (Span::default(), Timestamp::EPOCH)
        }
    }
}

/// The amendment of a hold; one of another kind changes none.
const fn slot_of(change: &Change) -> layout::SlotAmendment {
    match *change {
        Change::Release { id, .. } => layout::SlotAmendment { id, until: 0 },
        Change::Renew { id, renewed, .. } => {
            layout::SlotAmendment { id, until: renewed.as_micros() }
        }
        _ => layout::SlotAmendment { id: 0, until: 0 },
    }
}

/// The outcome of a guard, from its amount in the reply.
///
/// # Errors
/// [`StoreError::Protocol`] for a number that is none.
pub fn outcome(amount: u64) -> Result<Settled, StoreError> {
    match u8::try_from(amount) {
        Ok(layout::SETTLED) => Ok(Settled::Now),
        Ok(layout::AGAIN) => Ok(Settled::Again),
        Ok(layout::LATE) => Ok(Settled::Late),
        _ => Err(StoreError::Protocol(format!("{amount} is no outcome of a settlement"))),
    }
}

/// The hits of the amendment of a window, and their time as the script reads it.
const fn hits(algorithm: Algorithm, change: &Change) -> (u64, u64) {
    match (algorithm, *change) {
        (_, Change::GiveBack { hits, charged_at } | Change::Return { hits, charged_at }) => {
            (hits, charged_at.as_micros())
        }
        (
            _,
            Change::Charge { hits }
            | Change::ReturnOldest { hits }
            | Change::ChargeWithoutOldest { hits },
        ) => (hits, 0),
        (Algorithm::SlidingWindow { .. }, Change::Tell(Told::Sliding { hits, age })) => (hits, age),
        (Algorithm::FixedWindow, Change::Tell(Told::Fixed { hits, ends_at })) => {
            (hits, ends_at.as_micros())
        }
        (
            _,
            Change::Tell(_) | Change::Release { .. } | Change::ReleaseOldest | Change::Renew { .. },
        ) => (0, 0),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::{Charge, Key, Limit};

    fn amendment(key: &str, requests: u32) -> Amendment {
        let period = Duration::from_secs(1);
        let algorithm = Algorithm::FixedWindow;
        Amendment {
            key: Key::new(key.as_bytes()),
            limit: Limit::new(requests, period, algorithm, Charge::Admitted).unwrap(),
            change: Change::GiveBack { hits: 1, charged_at: Timestamp::EPOCH },
        }
    }

    #[test]
    fn frame_takes_so_many_and_names_each_counter_once() {
        let mut frame = AmendFrame::default();
        assert!(frame.is_empty());
        for i in 0..MAX_AMENDMENTS {
            assert!(frame.push(&amendment(["a", "b"][i % 2], 9)));
        }
        assert!(!frame.push(&amendment("c", 9)));
        assert_eq!((frame.len(), frame.keys().len()), (MAX_AMENDMENTS, 2));
        let mut out = Vec::new();
        frame.write(b"EVALSHA", b"0123", &mut out);
        assert!(out.starts_with(b"*7\r\n$7\r\nEVALSHA\r\n$4\r\n0123\r\n$1\r\n2\r\n$1\r\na\r\n"));
    }

    #[test]
    fn amendment_of_a_blocked_limit_has_no_counter() {
        let mut frame = AmendFrame::default();
        assert!(frame.push(&amendment("a", 0)));
        assert_eq!((frame.keys().len(), frame.args()[0]), (0, &[0; 6][..]));
    }

    #[test]
    fn reply_has_an_amount_for_each() {
        let mut frame = AmendFrame::default();
        frame.push(&amendment("a", 9));
        frame.push(&amendment("b", 9));
        assert_eq!(frame.amounts(vec![0, 5, 3, 4]), Ok(vec![3, 4]));
        for wrong in [
            vec![],
            vec![0],
            vec![0, 5],
            vec![0, 5, 3],
            vec![0, 5, 3, -4],
            vec![0, 5, 3, 4, 5],
            vec![-1, 5, 3, 4],
            vec![0, -5, 3, 4],
        ] {
            let amounts = frame.amounts(wrong.clone());
            assert!(matches!(amounts, Err(StoreError::Protocol(_))), "{wrong:?}: {amounts:?}");
        }
    }
}
