//! The pipes of one runtime to the primaries of a cluster.
//!
//! A pipe is made as soon as the map has its node, so that no request waits for a connection, and
//! dropped when the node has no slots any more. A redirection may need one sooner.

use std::sync::{Arc, Weak};

use parking_lot::RwLock;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::redis::cluster::{Cluster, NodeId};
use crate::redis::{Address, Connector, RedisSettings};
use crate::store::StoreError;
use crate::store::redis::breaker::BreakerState;
use crate::store::redis::health::Counts;
use crate::store::redis::node::Node;
use crate::store::redis::options::StoreOptions;
use crate::store::redis::pipe::Pipe;

/// The pipes to the primaries.
#[derive(Debug)]
pub(super) struct Nodes {
    pub(super) cluster: Arc<Cluster>,
    connector: Connector,
    settings: RedisSettings,
    options: StoreOptions,
    counts: Arc<Counts>,
    runtime: Handle,
    /// By the number of the node. Hardly ever written, and used by one core.
    pipes: RwLock<Vec<Option<Arc<Pipe>>>>,
}

impl Nodes {
    /// Makes the pipes once the map is known. Their tasks will be on the current tokio runtime.
    ///
    /// # Panics
    /// Panics outside a tokio runtime.
    pub(super) fn start(
        cluster: Arc<Cluster>,
        connector: Connector,
        settings: &RedisSettings,
        options: StoreOptions,
        counts: Arc<Counts>,
    ) -> Arc<Self> {
        let changes = cluster.changes();
        let nodes = Arc::new(Self {
            cluster,
            connector,
            settings: settings.clone(),
            options,
            counts,
            runtime: Handle::current(),
            pipes: RwLock::default(),
        });
        tokio::spawn(keep_primaries(Arc::downgrade(&nodes), changes));
        nodes
    }

    /// The pipe to the node that has `slot`.
    ///
    /// # Errors
    /// Fails if no node is known to have it.
    pub(super) fn of_slot(&self, slot: u16) -> Result<Arc<Pipe>, StoreError> {
        let pipe = self.cluster.node_of(slot).and_then(|node| self.pipe(node));
        let nobody = || format!("no node of the cluster has slot {slot}");
        pipe.ok_or_else(|| StoreError::Unavailable(nobody()))
    }

    /// The pipe to the node at `address`.
    ///
    /// # Errors
    /// Fails if there are more nodes than numbers.
    pub(super) fn at(&self, address: &Address) -> Result<Arc<Pipe>, StoreError> {
        let pipe = self.cluster.number(address).and_then(|node| self.pipe(node));
        pipe.ok_or_else(|| StoreError::Unavailable("too many nodes".to_owned()))
    }

    fn pipe(&self, node: NodeId) -> Option<Arc<Pipe>> {
        if let Some(Some(pipe)) = self.pipes.read().get(node.index()) {
            return Some(Arc::clone(pipe));
        }
        let address = self.cluster.address(node)?;
        let mut pipes = self.pipes.write();
        if pipes.len() <= node.index() {
            pipes.resize(node.index() + 1, None);
        }
        let place = pipes.get_mut(node.index())?;
        Some(Arc::clone(place.get_or_insert_with(|| Arc::new(self.make(node, address)))))
    }

    fn make(&self, id: NodeId, address: Address) -> Pipe {
        let connector = self.connector.at(address.clone());
        let node = Node { cluster: Arc::clone(&self.cluster), id, address };
        let (options, counts) = (&self.options, Arc::clone(&self.counts));
        Pipe::start(&self.runtime, &self.settings, connector, Some(node), options, counts)
    }

    fn all(&self) -> Vec<Arc<Pipe>> {
        self.pipes.read().iter().flatten().cloned().collect()
    }

    /// True once the map was read and the pipe to every primary has tried to connect.
    pub(super) fn have_tried(&self) -> bool {
        self.cluster.has_tried() && self.to_all(Pipe::has_tried)
    }

    /// True while every slot has a node and the pipe to every primary is in use.
    pub(super) fn are_up(&self) -> bool {
        self.cluster.uncovered() == 0 && self.to_all(Pipe::is_up)
    }

    /// True if every primary has a pipe for which `holds`.
    fn to_all(&self, holds: impl Fn(&Pipe) -> bool) -> bool {
        let pipes = self.pipes.read();
        let pipe = |node: &NodeId| pipes.get(node.index()).and_then(Option::as_ref);
        self.cluster.primaries().iter().all(|node| pipe(node).is_some_and(|pipe| holds(pipe)))
    }

    /// The states of the breakers.
    pub(super) fn breakers(&self) -> Vec<BreakerState> {
        self.all().iter().map(|pipe| pipe.breaker()).collect()
    }
}

/// Makes the pipes to nodes that have slots and drops those to nodes that have none any more, until
/// there are no nodes to keep.
async fn keep_primaries(nodes: Weak<Nodes>, mut changes: watch::Receiver<u64>) {
    loop {
        let Some(kept) = nodes.upgrade() else { return };
        let primaries = kept.cluster.primaries();
        for primary in &primaries {
            kept.pipe(*primary);
        }
        for (i, pipe) in kept.pipes.write().iter_mut().enumerate() {
            if !primaries.iter().any(|primary| primary.index() == i) {
                *pipe = None;
            }
        }
        drop(kept);
        if changes.changed().await.is_err() {
            return;
        }
    }
}
