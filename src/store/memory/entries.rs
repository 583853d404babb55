//! The counters of a shard side by side, in blocks, so that neither growing nor shrinking moves them.
//!
//! Not a map: a counter is known by its position, which changes only when another one is removed.

use super::fingerprint::Fingerprint;
use super::held::Held;
use crate::domain::Timestamp;

/// Entries per block: 3 KiB, which is all that one insertion may have to allocate.
const BLOCK: usize = 64;

/// One counter: 48 bytes, and the runs of a window that has several.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) print: Fingerprint,
    pub(super) empty_at: Timestamp,
    pub(super) held: Held,
}

/// Entries at the positions below `len`.
#[derive(Debug, Default)]
pub(super) struct Entries {
    /// Full up to the position `len`, then empty; at most one of them has no entry at all, so that a shard whose
    /// counters come and go at the edge of a block does not allocate.
    blocks: Vec<Vec<Entry>>,
    len: usize,
}

impl Entries {
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, at: usize) -> Option<&Entry> {
        self.blocks.get(at / BLOCK)?.get(at % BLOCK)
    }

    pub(super) fn get_mut(&mut self, at: usize) -> Option<&mut Entry> {
        self.blocks.get_mut(at / BLOCK)?.get_mut(at % BLOCK)
    }

    /// Puts `entry` at the position `len`.
    pub(super) fn push(&mut self, entry: Entry) {
        if let Some(block) = self.blocks.get_mut(self.len / BLOCK) {
            block.push(entry);
        } else {
            let mut block = Vec::with_capacity(BLOCK);
            block.push(entry);
            self.blocks.push(block);
        }
        self.len += 1;
    }

    /// Drops the entry at `at`; the last one takes its position.
    pub(super) fn swap_remove(&mut self, at: usize) {
        let block = self.len.saturating_sub(1) / BLOCK;
        let Some(last) = self.blocks.get_mut(block).and_then(Vec::pop) else { return };
        self.len -= 1;
        if let Some(removed) = self.get_mut(at) {
            *removed = last;
        }
        self.blocks.truncate(self.len.div_ceil(BLOCK) + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::fixed_window::WindowCount;

    fn entry(index: u64) -> Entry {
        let held = Held::FixedWindow(WindowCount { start: 0, count: 1 });
        let print = Fingerprint { index, spread: 0 };
        Entry { print, empty_at: Timestamp::default(), held }
    }

    #[test]
    fn entries_take_48_bytes() {
        assert_eq!(size_of::<Entry>(), 48);
    }

    #[test]
    fn moves_only_the_last_and_gives_blocks_back() {
        let (mut entries, mut model) = (Entries::default(), Vec::new());
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
            let blocks = model.len().div_ceil(BLOCK);
            assert!((blocks..=blocks + 1).contains(&entries.blocks.len()), "{index}");
        }
        (0..model.len()).for_each(|_| entries.swap_remove(0));
        assert_eq!((entries.len(), entries.blocks.len()), (0, 1));
        assert_eq!(entries.blocks.iter().map(Vec::len).sum::<usize>(), 0);
    }
}
