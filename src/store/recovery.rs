//! State that the connections of a process share about charges unknown to the store.
//!
//! Charges that were made while the store was away are told to it once, by one connection at a
//! time. A connection that works again stays out of use until nothing is untold, because the store
//! would admit once more what was admitted without it.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::domain::{Amendment, Key};

/// Knows what the store is to be told.
pub trait Teller: Send + Sync {
    /// Takes up to `max` amendments of counters for which `is_here` holds. They are never given
    /// again: if they are lost they may have been charged.
    fn take(&self, max: usize, is_here: &dyn Fn(&Key) -> bool) -> Vec<Amendment>;

    /// Amendments that were taken are over. `applied`: what the store has charged for each; none:
    /// it is not known.
    fn told(&self, amendments: &[Amendment], applied: Option<&[u64]>);
}

impl fmt::Debug for dyn Teller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Teller")
    }
}

/// The recovery of a process. Shared by its connections and its failover layer.
#[derive(Debug, Default)]
pub struct Recovery {
    /// Counters with charges that the store does not know, or is being told.
    untold: AtomicUsize,
    /// A connection is telling.
    telling: AtomicBool,
    /// Amendments that were taken, and that the store has refused without executing anything. They
    /// count as untold.
    refused: Mutex<Vec<Amendment>>,
    /// Nothing is untold.
    settled: Notify,
}

impl Recovery {
    /// A counter has charges that the store does not know.
    pub fn add(&self) {
        self.untold.fetch_add(1, Ordering::AcqRel);
    }

    /// The charges of `counters` counters were told, or are given up.
    pub fn remove(&self, counters: usize) {
        if counters > 0 && self.untold.fetch_sub(counters, Ordering::AcqRel) == counters {
            self.settled.notify_waiters();
        }
    }

    /// The number of counters with charges that the store does not know.
    pub fn untold(&self) -> usize {
        self.untold.load(Ordering::Acquire)
    }

    /// Keeps amendments that the store has refused, until it is told them again.
    pub(super) fn keep(&self, refused: Vec<Amendment>) {
        self.refused.lock().extend(refused);
    }

    /// Takes up to `max` of the kept amendments for which `is_here` holds.
    pub(super) fn take_kept(&self, max: usize, is_here: &dyn Fn(&Key) -> bool) -> Vec<Amendment> {
        let mut kept = self.refused.lock();
        let (mut taken, mut left) = (Vec::new(), Vec::new());
        for amendment in kept.drain(..) {
            let fits = taken.len() < max && is_here(&amendment.key);
            if fits { taken.push(amendment) } else { left.push(amendment) }
        }
        *kept = left;
        taken
    }

    /// Waits until nothing is untold.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn settled(&self) {
        loop {
            let settled = self.settled.notified();
            if self.untold() == 0 {
                return;
            }
            settled.await;
        }
    }

    /// Returns true if the caller is to tell, until it calls [`end_telling`](Self::end_telling).
    pub(super) fn begin_telling(&self) -> bool {
        !self.telling.swap(true, Ordering::AcqRel)
    }

    pub(super) fn end_telling(&self) {
        self.telling.store(false, Ordering::Release);
    }
}
