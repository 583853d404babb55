//! A segment tree over possible starts of an interval: the best start for a given end.
//!
//! Start `i` has an offset and hits. Its value is the offset plus the hits at `i` and after it. A
//! start counts from its first hit on: before that, it may lie after the end that is looked at.
//! Leaves are blocks of starts, so that 10 million of them fit in memory.

/// The number of starts in a leaf.
const BLOCK: usize = 16;

/// Less than any value.
const NONE: i128 = i128::MIN / 2;

/// The sum of a range of starts and its best value, as if no start came after the range.
#[derive(Clone, Copy, Debug)]
struct Node {
    sum: i128,
    best: i128,
}

const EMPTY: Node = Node { sum: 0, best: NONE };

impl Node {
    /// The range of `self` followed by that of `right`.
    fn join(self, right: Self) -> Self {
        Self { sum: self.sum + right.sum, best: right.best.max(self.best + right.sum) }
    }
}

/// The best start, and the hits from it on times the weight of a hit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    pub(super) index: usize,
    pub(super) sum: i128,
}

/// Starts with offsets, and the hits that were added.
#[derive(Debug)]
pub(super) struct Tree<F> {
    /// The offset of a start.
    offset: F,
    /// The weight of a hit.
    weight: i128,
    /// Hits by start.
    hits: Vec<u64>,
    /// A power of two.
    leaves: usize,
    /// The root is at 1, the children of `i` at `2 * i` and `2 * i + 1`.
    nodes: Vec<Node>,
}

impl<F: Fn(usize) -> i128> Tree<F> {
    pub(super) fn new(starts: usize, weight: u64, offset: F) -> Self {
        let leaves = starts.div_ceil(BLOCK).next_power_of_two();
        Self {
            offset,
            weight: weight.into(),
            hits: vec![0; starts],
            leaves,
            nodes: vec![EMPTY; 2 * leaves],
        }
    }

    /// Adds hits at a start.
    pub(super) fn add(&mut self, start: usize, hits: u64) {
        let Some(at_start) = self.hits.get_mut(start) else { return };
        *at_start = at_start.saturating_add(hits);
        let block = start / BLOCK;
        let mut node = self.leaves + block;
        let mut joined = self.leaf(block);
        loop {
            if let Some(place) = self.nodes.get_mut(node) {
                *place = joined;
            }
            node /= 2;
            if node == 0 {
                return;
            }
            joined = self.node(2 * node).join(self.node(2 * node + 1));
        }
    }

    /// The best value of all starts.
    pub(super) fn best(&self) -> i128 {
        self.node(1).best
    }

    /// The start of the best value, the latest if several have it.
    pub(super) fn best_start(&self) -> Start {
        let (mut node, mut after) = (1, 0);
        while node < self.leaves {
            let (left, right) = (self.node(2 * node), self.node(2 * node + 1));
            if right.best >= left.best + right.sum {
                node = 2 * node + 1;
            } else {
                after += right.sum;
                node *= 2;
            }
        }
        let mut best = (NONE, Start { index: 0, sum: 0 });
        self.scan(node - self.leaves, |index, sum, value| {
            if value > best.0 {
                best = (value, Start { index, sum: sum + after });
            }
        });
        best.1
    }

    fn leaf(&self, block: usize) -> Node {
        let mut leaf = EMPTY;
        self.scan(block, |_, sum, value| leaf = Node { sum, best: leaf.best.max(value) });
        leaf
    }

    /// Visits the starts of a block that have hits, last first: index, sum from there on, value.
    fn scan(&self, block: usize, mut visit: impl FnMut(usize, i128, i128)) {
        let first = block * BLOCK;
        let last = (first + BLOCK).min(self.hits.len());
        let hits = self.hits.get(first..last).unwrap_or_default();
        let mut sum = 0;
        for (index, hits) in hits.iter().enumerate().rev().filter(|(_, hits)| **hits > 0) {
            sum += i128::from(*hits) * self.weight;
            visit(first + index, sum, (self.offset)(first + index) + sum);
        }
    }

    fn node(&self, index: usize) -> Node {
        self.nodes.get(index).copied().unwrap_or(EMPTY)
    }
}
