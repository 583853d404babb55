//! The index of a shard: fingerprint -> position. It stores positions only; the fingerprints are
//! stored with the counters.
//!
//! The index is split into parts that grow independently. A growing table moves its content while a
//! request waits, so tables are kept small.

use hashbrown::HashTable;

use super::fingerprint::Fingerprint;

const PARTS: usize = 16;

/// The positions of the counters of a shard.
#[derive(Debug, Default)]
pub(super) struct Index([HashTable<u32>; PARTS]);

impl Index {
    /// The part that holds `print`, hashed by [`Fingerprint::index`].
    #[expect(clippy::indexing_slicing, reason = "`part` is below the number of parts")]
    pub(super) const fn of(&self, print: Fingerprint) -> &HashTable<u32> {
        &self.0[part(print)]
    }

    /// The bytes of all positions.
    pub(super) fn bytes(&self) -> usize {
        self.0.iter().map(HashTable::allocation_size).sum()
    }

    /// Mutable [`of`](Self::of).
    #[expect(clippy::indexing_slicing, reason = "`part` is below the number of parts")]
    pub(super) const fn of_mut(&mut self, print: Fingerprint) -> &mut HashTable<u32> {
        &mut self.0[part(print)]
    }
}

/// The part of a fingerprint. Uses bits that choose neither the shard nor the position in the
/// table.
const fn part(print: Fingerprint) -> usize {
    (print.spread >> 32) as usize % PARTS
}
