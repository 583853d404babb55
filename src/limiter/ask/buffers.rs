//! Buffers of requests that are over, used again by the next ones of the thread: a request of one
//! limit would otherwise take three allocations for them.

use std::cell::RefCell;
use std::mem;

use super::{Ask, Asked};
use crate::domain::{Claim, Part};

/// Buffers that a thread keeps: those of requests that are decided at the same time.
const MAX_KEPT: usize = 32;

/// Buffers for more claims are not kept.
const MAX_CLAIMS: usize = 16;

#[derive(Default)]
struct Buffers {
    parts: Vec<Part>,
    claims: Vec<Claim>,
    records: Vec<Asked>,
}

thread_local!(static KEPT: RefCell<Vec<Buffers>> = const { RefCell::new(Vec::new()) });

impl Ask {
    /// An empty request, with room.
    pub fn with_room() -> Self {
        let kept = KEPT.try_with(|kept| kept.borrow_mut().pop());
        let Buffers { parts, claims, records } = kept.ok().flatten().unwrap_or_default();
        let mut ask = Self::default();
        (ask.group.parts, ask.group.claims, ask.records) = (parts, claims, records);
        ask
    }
}

impl Drop for Ask {
    fn drop(&mut self) {
        if self.records.capacity() == 0 || self.records.capacity() > MAX_CLAIMS {
            return;
        }
        self.group.parts.clear();
        self.group.claims.clear();
        self.records.clear();
        // A thread that ends keeps nothing.
        let _ = KEPT.try_with(|kept| {
            let mut kept = kept.borrow_mut();
            if kept.len() < MAX_KEPT {
                kept.push(Buffers {
                    parts: mem::take(&mut self.group.parts),
                    claims: mem::take(&mut self.group.claims),
                    records: mem::take(&mut self.records),
                });
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> usize {
        KEPT.with_borrow(Vec::len)
    }

    #[test]
    fn buffers_are_kept_up_to_a_number_and_a_size() {
        let ask = |claims: usize| {
            let mut ask = Ask::with_room();
            ask.records = Vec::with_capacity(claims);
            ask
        };
        drop(ask(MAX_CLAIMS + 1));
        drop(Ask::with_room());
        assert_eq!(kept(), 0, "too large, and nothing");
        let many: Vec<Ask> = (0..=MAX_KEPT).map(|_| ask(4)).collect();
        drop(many);
        assert_eq!(kept(), MAX_KEPT);
        let again = Ask::with_room();
        assert_eq!((again.records.capacity(), again.len(), kept()), (4, 0, MAX_KEPT - 1));
    }
}
