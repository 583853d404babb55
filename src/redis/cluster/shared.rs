//! State that the users of a cluster share with the task that reads its map.

use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::map::SlotMap;
use crate::redis::Address;

/// The time for which trouble with a node makes the map be read again and again.
const TROUBLE: Duration = Duration::from_millis(1_500);

/// State that the task shares with the users of the map.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) map: SlotMap,
    pub(super) seeds: Vec<Address>,
    /// Wakes the task.
    pub(super) wanted: Notify,
    /// The last trouble, and the node that it came from.
    trouble: Mutex<Option<(Instant, Option<Address>)>>,
    /// The outcome of the last attempt to read the map; `None` before the first.
    pub(super) outcome: watch::Sender<Option<Result<(), String>>>,
    /// Counts the changes of the map.
    pub(super) changes: watch::Sender<u64>,
    /// The number of times that any node was asked for.
    pub(super) picks: AtomicUsize,
}

impl Shared {
    /// Nothing is known yet but some nodes.
    pub(super) fn new(seeds: Vec<Address>) -> Self {
        Self {
            map: SlotMap::default(),
            seeds,
            wanted: Notify::new(),
            trouble: Mutex::default(),
            outcome: watch::Sender::default(),
            changes: watch::Sender::default(),
            picks: AtomicUsize::default(),
        }
    }

    /// Notes trouble with a node, or with the whole cluster. Returns true if there was none before.
    pub(super) fn note_trouble(&self, node: Option<&Address>) -> bool {
        let mut trouble = self.trouble.lock();
        let new = trouble.as_ref().is_none_or(|(since, _)| since.elapsed() >= TROUBLE);
        *trouble = Some((Instant::now(), node.cloned()));
        new
    }

    /// The map has changed, so the trouble may be over.
    pub(super) fn end_trouble(&self) {
        *self.trouble.lock() = None;
    }

    /// True while there is trouble.
    pub(super) fn is_troubled(&self) -> bool {
        self.trouble.lock().as_ref().is_some_and(|(since, _)| since.elapsed() < TROUBLE)
    }

    /// The node that there is trouble with, if it is known.
    fn troubled_node(&self) -> Option<Address> {
        let trouble = self.trouble.lock();
        let recent = trouble.as_ref().filter(|(since, _)| since.elapsed() < TROUBLE);
        recent.and_then(|(_, node)| node.clone())
    }

    /// True if every slot has a node.
    pub(super) fn is_whole(&self) -> bool {
        self.map.uncovered() == 0
    }

    /// The nodes to ask: those that are known, by turns, the one with trouble behind the others,
    /// seeds last.
    pub(super) fn candidates(&self, turn: usize) -> Vec<Address> {
        let troubled = self.troubled_node();
        let known = self.map.primaries().into_iter().filter_map(|node| self.map.address(node));
        let mut known: Vec<_> = known.collect();
        if !known.is_empty() {
            let first = turn % known.len();
            known.rotate_left(first);
        }
        known.sort_by_key(|node| troubled.as_ref() == Some(node));
        for seed in &self.seeds {
            if !known.contains(seed) {
                known.push(seed.clone());
            }
        }
        known
    }
}
