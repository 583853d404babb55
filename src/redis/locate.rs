//! The address of the server for a connection.

use std::fmt;
use std::sync::Arc;

use super::address::Address;
use super::cluster::Cluster;
use super::sentinel::Sentinels;

/// The method to find the server before each attempt to connect.
#[derive(Clone, Debug)]
pub(super) enum Locate {
    /// A fixed address. It may be a name that resolves to another server after a failover.
    Fixed(Address),
    /// The answer of sentinels.
    Sentinel(Arc<Sentinels>),
    /// A node of a Redis Cluster: the primary of this slot, or any node.
    Cluster(Arc<Cluster>, Option<u16>),
}

impl Locate {
    /// The current address of the server.
    ///
    /// # Errors
    /// Fails with a reason for the operator if nobody knows it.
    pub(super) async fn primary(&self) -> Result<Address, String> {
        match self {
            Self::Fixed(address) => Ok(address.clone()),
            Self::Sentinel(sentinels) => sentinels.primary().await,
            Self::Cluster(cluster, slot) => cluster.node(*slot).await,
        }
    }

    /// The address of the primary as far as it is known; a cluster has several.
    pub(super) fn known(&self) -> Option<Address> {
        match self {
            Self::Fixed(address) => Some(address.clone()),
            Self::Sentinel(sentinels) => sentinels.known(),
            Self::Cluster(..) => None,
        }
    }

    /// True unless the primary has moved from `address`. A node of a cluster says so itself.
    pub(super) fn is_current(&self, address: &Address) -> bool {
        match self {
            Self::Fixed(fixed) => fixed == address,
            Self::Sentinel(sentinels) => sentinels.known().as_ref() == Some(address),
            Self::Cluster(..) => true,
        }
    }

    /// The sentinels, if there are any.
    pub(super) const fn sentinels(&self) -> Option<&Arc<Sentinels>> {
        match self {
            Self::Fixed(_) | Self::Cluster(..) => None,
            Self::Sentinel(sentinels) => Some(sentinels),
        }
    }

    /// The cluster, if there is one.
    pub(super) const fn cluster(&self) -> Option<&Arc<Cluster>> {
        match self {
            Self::Fixed(_) | Self::Sentinel(_) => None,
            Self::Cluster(cluster, _) => Some(cluster),
        }
    }
}

impl fmt::Display for Locate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(address) => address.fmt(f),
            Self::Sentinel(sentinels) => sentinels.fmt(f),
            Self::Cluster(cluster, _) => cluster.fmt(f),
        }
    }
}
