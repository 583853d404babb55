//! The counters of a shard in a dense list of fixed-size blocks. Growing and shrinking does not
//! move them.
//!
//! A counter is identified by its position, which changes only when another counter is removed.

use super::fingerprint::Fingerprint;
use super::held::Held;
use crate::domain::Timestamp;

/// Entries per block. A block of 3 KiB is the most that an insertion allocates.
const BLOCK_ENTRIES: usize = 64;

/// One counter: 48 bytes, plus the packed runs of a sliding window with several.
#[derive(Debug)]
pub(super) struct SlabEntry {
    pub(super) print: Fingerprint,
    pub(super) empty_at: Timestamp,
    pub(super) held: Held,
}

/// A dense list of counters.
#[derive(Debug, Default)]
pub(super) struct Slab {
    /// All blocks up to position `len` are full. At most one empty block follows, so that a shard
    /// that grows and shrinks at the edge of a block does not allocate each time.
    blocks: Vec<Vec<SlabEntry>>,
    len: usize,
}

impl Slab {
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, at: usize) -> Option<&SlabEntry> {
        self.blocks.get(at / BLOCK_ENTRIES)?.get(at % BLOCK_ENTRIES)
    }

    pub(super) fn get_mut(&mut self, at: usize) -> Option<&mut SlabEntry> {
        self.blocks.get_mut(at / BLOCK_ENTRIES)?.get_mut(at % BLOCK_ENTRIES)
    }

    /// The bytes of all entries; those outside of the list are estimated by its first block.
    pub(super) fn bytes(&self) -> usize {
        let blocks = self.blocks.len() * BLOCK_ENTRIES * size_of::<SlabEntry>();
        let first = self.blocks.first().map_or(&[][..], Vec::as_slice);
        let outside: usize = first.iter().map(|entry| entry.held.heap_bytes()).sum();
        blocks + outside * self.len / first.len().max(1)
    }

    /// Appends `entry` at position `len`.
    pub(super) fn push(&mut self, entry: SlabEntry) {
        if let Some(block) = self.blocks.get_mut(self.len / BLOCK_ENTRIES) {
            block.push(entry);
        } else {
            let mut block = Vec::with_capacity(BLOCK_ENTRIES);
            block.push(entry);
            self.blocks.push(block);
        }
        self.len += 1;
    }

    /// Drops the entry at `at` and moves the last entry there.
    pub(super) fn swap_remove(&mut self, at: usize) {
        let block = self.len.saturating_sub(1) / BLOCK_ENTRIES;
        let Some(last) = self.blocks.get_mut(block).and_then(Vec::pop) else { return };
        self.len -= 1;
        if let Some(removed) = self.get_mut(at) {
            *removed = last;
        }
        self.blocks.truncate(self.len.div_ceil(BLOCK_ENTRIES) + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::fixed_window::WindowCount;

    fn entry(index: u64) -> SlabEntry {
        let held = Held::FixedWindow(WindowCount { start: Timestamp::EPOCH, count: 1 });
        let print = Fingerprint { index, spread: 0 };
        SlabEntry { print, empty_at: Timestamp::default(), held }
    }

    #[test]
    fn entries_take_48_bytes() {
        assert_eq!(size_of::<SlabEntry>(), 48);
    }

    #[test]
    fn moves_only_the_last_and_gives_blocks_back() {
        let (mut entries, mut model) = (Slab::default(), Vec::new());
        for index in 0..1_000_u64 {
            entries.push(entry(index));
            model.push(index);
            if index % 3 == 0 {
                let at = (index as usize * 7) % model.len();
                entries.swap_remove(at);
                model.swap_remove(at);
            }
            let found = (0..=model.len()).map_while(|at| entries.get(at)).map(|e| e.print.index);
            assert!(found.eq(model.iter().copied()) && entries.len() == model.len(), "{index}");
            let blocks = model.len().div_ceil(BLOCK_ENTRIES);
            assert!((blocks..=blocks + 1).contains(&entries.blocks.len()), "{index}");
        }
        (0..model.len()).for_each(|_| entries.swap_remove(0));
        assert_eq!((entries.len(), entries.blocks.len()), (0, 1));
        assert_eq!(entries.blocks.iter().map(Vec::len).sum::<usize>(), 0);
    }
}
