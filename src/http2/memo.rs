//! Blocks of headers that are not whole, and those that come again and again.

use std::sync::Arc;

/// Different heads of requests that are remembered.
const MEMOS: usize = 4;
/// Bytes of a block that is remembered.
pub(super) const MEMO_BYTES: usize = 1 << 10;

/// A block of headers that is not whole.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) id: u32,
    pub(super) bytes: Vec<u8>,
    pub(super) end_stream: bool,
    pub(super) frames: usize,
}

/// Heads by their blocks. A client sends the same block for nearly every call, and it means the
/// same as long as the table of the decoder has not changed.
#[derive(Debug)]
pub(super) struct Memo<T> {
    known: Vec<(Box<[u8]>, Arc<T>)>,
    version: u64,
    next: usize,
}

impl<T> Default for Memo<T> {
    fn default() -> Self {
        Self { known: Vec::new(), version: 0, next: 0 }
    }
}

impl<T> Memo<T> {
    pub(super) fn get(&self, block: &[u8], version: u64) -> Option<&Arc<T>> {
        if self.version != version {
            return None;
        }
        self.known.iter().find(|(known, _)| **known == *block).map(|(_, head)| head)
    }

    pub(super) fn keep(&mut self, block: &[u8], head: &Arc<T>, version: u64) {
        if self.version != version {
            self.known.clear();
            (self.version, self.next) = (version, 0);
        }
        let memo = (block.into(), Arc::clone(head));
        match self.known.get_mut(self.next) {
            Some(place) => *place = memo,
            None => self.known.push(memo),
        }
        self.next = (self.next + 1) % MEMOS;
    }
}
