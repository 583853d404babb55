//! The pipes of one runtime to the primaries of a cluster.
//!
//! A pipe is made when it is first needed, and dropped when its node has no slots any more.

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
    /// No pipes yet. Their tasks will be on the current tokio runtime.
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

    /// True once the map was read and every pipe has tried to connect.
    pub(super) fn have_tried(&self) -> bool {
        self.cluster.has_tried() && self.all().iter().all(|pipe| pipe.has_tried())
    }

    /// True while every slot has a node and every pipe is in use.
    pub(super) fn are_up(&self) -> bool {
        self.cluster.uncovered() == 0 && self.all().iter().all(|pipe| pipe.is_up())
    }

    /// The states of the breakers.
    pub(super) fn breakers(&self) -> Vec<BreakerState> {
        self.all().iter().map(|pipe| pipe.breaker()).collect()
    }
}

/// Drops the pipes to nodes that have no slots any more, until there are no nodes to keep.
async fn keep_primaries(nodes: Weak<Nodes>, mut changes: watch::Receiver<u64>) {
    while changes.changed().await.is_ok() {
        let Some(nodes) = nodes.upgrade() else { return };
        let primaries = nodes.cluster.primaries();
        let mut pipes = nodes.pipes.write();
        for (i, pipe) in pipes.iter_mut().enumerate() {
            if !primaries.iter().any(|primary| primary.index() == i) {
                *pipe = None;
            }
        }
    }
}
