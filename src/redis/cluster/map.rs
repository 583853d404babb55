//! The slots of a Redis Cluster, and the node that has each.
//!
//! Reading takes one atomic load and no lock. Nodes are numbered in the order in which they were
//! first seen, and keep their number: a node that is gone costs some bytes.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::redis::Address;

/// The number of slots.
pub(crate) const SLOTS: u16 = 1 << 14;

/// The value of a slot that no node has.
const NOBODY: u16 = u16::MAX;

/// The number of a node, as this process counts them.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct NodeId(u16);

impl NodeId {
    /// The number as an index.
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Slots that one node has.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Range {
    pub(crate) slots: RangeInclusive<u16>,
    pub(crate) primary: Address,
}

/// The node of each slot.
///
/// # Concurrency
/// Readers are wait-free. Writers take turns.
#[derive(Debug)]
pub(crate) struct SlotMap {
    slots: Box<[AtomicU16]>,
    nodes: ArcSwap<Vec<Address>>,
    writer: Mutex<()>,
}

impl Default for SlotMap {
    fn default() -> Self {
        Self {
            slots: (0..SLOTS).map(|_| AtomicU16::new(NOBODY)).collect(),
            nodes: ArcSwap::default(),
            writer: Mutex::default(),
        }
    }
}

impl SlotMap {
    /// The node that has `slot`.
    pub(crate) fn node_of(&self, slot: u16) -> Option<NodeId> {
        let node = self.slots.get(usize::from(slot))?.load(Ordering::Acquire);
        (node != NOBODY).then_some(NodeId(node))
    }

    /// The address of a node.
    pub(crate) fn address(&self, node: NodeId) -> Option<Address> {
        self.nodes.load().get(node.index()).cloned()
    }

    /// The number of a node; `None` if there is no number left.
    pub(crate) fn number(&self, address: &Address) -> Option<NodeId> {
        let turn = self.writer.lock();
        let number = self.number_of(address);
        drop(turn);
        number
    }

    /// Notes that the node at `address` has `slot`. Returns true if that is new.
    pub(crate) fn set(&self, slot: u16, address: &Address) -> bool {
        let turn = self.writer.lock();
        let changed = match (self.number_of(address), self.slots.get(usize::from(slot))) {
            (Some(node), Some(place)) => place.swap(node.0, Ordering::AcqRel) != node.0,
            _ => false,
        };
        drop(turn);
        changed
    }

    /// Notes who has which slots; nobody has the others. Returns true if anything is new.
    pub(crate) fn replace(&self, ranges: &[Range]) -> bool {
        let turn = self.writer.lock();
        let mut owners = vec![NOBODY; usize::from(SLOTS)];
        for Range { slots, primary } in ranges {
            let Some(node) = self.number_of(primary) else { continue };
            let range = usize::from(*slots.start())..=usize::from(*slots.end());
            owners.get_mut(range).unwrap_or_default().fill(node.0);
        }
        let mut changed = false;
        for (place, owner) in self.slots.iter().zip(owners) {
            changed |= place.swap(owner, Ordering::AcqRel) != owner;
        }
        drop(turn);
        changed
    }

    /// The nodes that have slots.
    pub(crate) fn primaries(&self) -> BTreeSet<NodeId> {
        let owners = self.slots.iter().map(|place| place.load(Ordering::Acquire));
        let mut last = NOBODY;
        // Slots come in long ranges.
        let changes = owners.filter(|node| std::mem::replace(&mut last, *node) != *node);
        changes.filter(|node| *node != NOBODY).map(NodeId).collect()
    }

    /// The number of slots that no node has.
    pub(crate) fn uncovered(&self) -> usize {
        self.slots.iter().filter(|place| place.load(Ordering::Acquire) == NOBODY).count()
    }

    /// The number of a node. The caller holds the lock of writers.
    fn number_of(&self, address: &Address) -> Option<NodeId> {
        let nodes = self.nodes.load();
        if let Some(known) = nodes.iter().position(|node| node == address) {
            return u16::try_from(known).ok().map(NodeId);
        }
        let number = u16::try_from(nodes.len()).ok().filter(|number| *number != NOBODY)?;
        let mut more = Vec::clone(&nodes);
        more.push(address.clone());
        self.nodes.store(Arc::new(more));
        Some(NodeId(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(port: u16) -> Address {
        Address::Tcp("h".to_owned(), port)
    }

    fn range(slots: RangeInclusive<u16>, port: u16) -> Range {
        Range { slots, primary: node(port) }
    }

    fn port_of(map: &SlotMap, slot: u16) -> Option<u16> {
        match map.address(map.node_of(slot)?)? {
            Address::Tcp(_, port) => Some(port),
            Address::Unix(_) => None,
        }
    }

    #[test]
    fn slots_follow_ranges_and_single_moves() {
        let map = SlotMap::default();
        assert_eq!((map.uncovered(), map.node_of(0)), (16_384, None));
        assert!(map.replace(&[range(0..=8_191, 1), range(8_192..=16_383, 2)]));
        assert!(!map.replace(&[range(0..=8_191, 1), range(8_192..=16_383, 2)]), "nothing new");
        assert_eq!(
            [0, 8_191, 8_192, 16_383].map(|slot| port_of(&map, slot)),
            [Some(1), Some(1), Some(2), Some(2)]
        );
        assert!(map.set(5, &node(3)) && !map.set(5, &node(3)));
        assert_eq!([4, 5, 6].map(|slot| port_of(&map, slot)), [Some(1), Some(3), Some(1)]);
        assert_eq!(map.primaries().len(), 3);
        assert!(map.replace(&[range(0..=99, 2)]));
        assert_eq!((port_of(&map, 99), port_of(&map, 100)), (Some(2), None));
        assert_eq!((map.primaries().len(), map.uncovered()), (1, 16_284));
    }

    #[test]
    fn slots_beyond_the_last_one_are_nobodys() {
        let map = SlotMap::default();
        assert!(!map.set(SLOTS, &node(1)) && map.node_of(SLOTS).is_none());
        assert!(!map.replace(&[range(0..=SLOTS, 1)]), "a range that is none");
    }

    #[test]
    fn node_keeps_its_number() {
        let map = SlotMap::default();
        let first = map.number(&node(1));
        map.replace(&[range(0..=1, 2)]);
        assert_eq!((map.number(&node(1)), map.number(&node(2)) != first), (first, true));
    }
}
