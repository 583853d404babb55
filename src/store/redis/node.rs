//! The node of a cluster that a connection leads to.

use std::sync::Arc;

use crate::redis::Address;
use crate::redis::cluster::{Cluster, NodeId};

/// A node, and the cluster that it belongs to.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) cluster: Arc<Cluster>,
    pub(super) id: NodeId,
    pub(super) address: Address,
}

impl Node {
    /// True if the node has `slot`.
    pub(super) fn has(&self, slot: u16) -> bool {
        self.cluster.node_of(slot) == Some(self.id)
    }

    /// The connection is lost, or could not be made.
    pub(super) fn is_lost(&self) {
        self.cluster.trouble(Some(&self.address));
    }

    /// The node says that the cluster is down.
    pub(super) fn is_down(&self) {
        self.cluster.trouble(None);
    }
}
