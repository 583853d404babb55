//! A Redis Cluster: the node that has each slot.
//!
//! * `map`: the slots. `slots`: what nodes say of them, in replies and redirections.
//! * `refresh`: the task that reads the map again. `shared`: what it shares with the users.

mod map;
mod refresh;
mod shared;
mod slots;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

pub(crate) use self::map::NodeId;
pub(crate) use self::refresh::AskSlots;
use self::shared::Shared;
pub(crate) use self::slots::{Redirect, redirect};
use super::address::Address;

/// A cluster, shared by everything in the process that uses it.
#[derive(Debug)]
pub(crate) struct Cluster {
    shared: Arc<Shared>,
    /// Ends the task that reads the map.
    _task: DropGuard,
}

impl Cluster {
    /// A cluster that is found by `seeds`. A task on the current tokio runtime keeps its map by
    /// asking nodes with `ask`, until the cluster is dropped.
    ///
    /// # Panics
    /// Panics outside a tokio runtime.
    pub(crate) fn start(seeds: Vec<Address>, ask: impl AskSlots) -> Self {
        let shared = Arc::new(Shared::new(seeds));
        let token = CancellationToken::new();
        let (task, ended) = (refresh::run(Arc::clone(&shared), ask), token.clone());
        tokio::spawn(async move { ended.run_until_cancelled(task).await });
        Self { shared, _task: token.drop_guard() }
    }

    /// The node that has `slot`.
    pub(crate) fn node_of(&self, slot: u16) -> Option<NodeId> {
        self.shared.map.node_of(slot)
    }

    /// The address of a node.
    pub(crate) fn address(&self, node: NodeId) -> Option<Address> {
        self.shared.map.address(node)
    }

    /// The number of the node at `address`.
    pub(crate) fn number(&self, address: &Address) -> Option<NodeId> {
        self.shared.map.number(address)
    }

    /// The nodes that have slots.
    pub(crate) fn primaries(&self) -> BTreeSet<NodeId> {
        self.shared.map.primaries()
    }

    /// The addresses of the nodes that have slots; those of the settings while none is known.
    pub(crate) fn nodes(&self) -> Vec<Address> {
        let nodes = self.primaries().into_iter().filter_map(|node| self.address(node));
        let nodes: Vec<_> = nodes.collect();
        if nodes.is_empty() { self.shared.seeds.clone() } else { nodes }
    }

    /// The number of slots that no node has.
    pub(crate) fn uncovered(&self) -> usize {
        self.shared.map.uncovered()
    }

    /// The address of the node that has `slot`, or of any node. Waits for the first attempt to
    /// read the map.
    ///
    /// # Errors
    /// Fails with a reason for the operator if nobody has the slot.
    pub(crate) async fn node(&self, slot: Option<u16>) -> Result<Address, String> {
        let outcome = self.tried().await;
        let Shared { map, seeds, picks, .. } = &*self.shared;
        let known = if let Some(slot) = slot {
            map.node_of(slot).and_then(|node| map.address(node))
        } else {
            let nodes = map.primaries().into_iter().filter_map(|node| map.address(node));
            let nodes: Vec<_> = nodes.chain(seeds.iter().cloned()).collect();
            let pick = picks.fetch_add(1, Ordering::Relaxed) % nodes.len().max(1);
            nodes.get(pick).cloned()
        };
        known.ok_or_else(|| match (outcome, slot) {
            (Err(reason), _) => reason,
            (Ok(()), Some(slot)) => format!("no node of the cluster has slot {slot}"),
            (Ok(()), None) => "no node of the cluster is known".to_owned(),
        })
    }

    /// Waits until the map was read or could not be read, and returns the last outcome.
    ///
    /// # Errors
    /// Fails with a reason for the operator if no node has answered.
    pub(crate) async fn tried(&self) -> Result<(), String> {
        let mut outcome = self.shared.outcome.subscribe();
        let seen = outcome.wait_for(Option::is_some).await;
        seen.ok().and_then(|outcome| outcome.clone()).unwrap_or(Ok(()))
    }

    /// True once an attempt to read the map has ended.
    pub(crate) fn has_tried(&self) -> bool {
        self.shared.outcome.borrow().is_some()
    }

    /// A receiver that sees each change of the map.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// Notes a redirection: `slot` is at the node `to`, if that is known. The map is read again.
    pub(crate) fn moved(&self, slot: u16, to: Option<&Address>) {
        if to.is_some_and(|to| self.shared.map.set(slot, to)) {
            self.shared.changes.send_modify(|changes| *changes += 1);
        }
        self.shared.wanted.notify_one();
    }

    /// Notes that a node cannot be reached, or that the cluster is down. The map is read again, and
    /// often, until it changes or the trouble ends.
    pub(crate) fn trouble(&self, node: Option<&Address>) {
        if self.shared.note_trouble(node) {
            self.shared.wanted.notify_one();
        }
    }
}

impl fmt::Display for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the cluster of ")?;
        for (i, seed) in self.shared.seeds.iter().enumerate() {
            write!(f, "{}{seed}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}
