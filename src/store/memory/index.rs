//! Where the counters of a shard are: fingerprint -> position. Not where the fingerprints are: those are with the counters.
//!
//! In parts, each of which grows by itself: a table that grows moves all that it holds, while a request waits.

use hashbrown::HashTable;

use super::fingerprint::Fingerprint;

const PARTS: usize = 16;

/// The positions of the counters of a shard.
#[derive(Debug, Default)]
pub(super) struct Index([HashTable<u32>; PARTS]);

impl Index {
    /// The table in which `print` is, by [`Fingerprint::index`].
    #[expect(clippy::indexing_slicing, reason = "`part` is below the number of parts")]
    pub(super) const fn of(&self, print: Fingerprint) -> &HashTable<u32> {
        &self.0[part(print)]
    }

    /// The same, to be changed.
    #[expect(clippy::indexing_slicing, reason = "`part` is below the number of parts")]
    pub(super) const fn of_mut(&mut self, print: Fingerprint) -> &mut HashTable<u32> {
        &mut self.0[part(print)]
    }
}

/// By bits that choose neither the shard nor the place in the table.
const fn part(print: Fingerprint) -> usize {
    (print.spread >> 32) as usize % PARTS
}
