//! The stores of what is measured: Redis in its forms, started, pinned, and killed when dropped.

use crate::servers::{OTHER_CORE, pin};
use crate::support::cluster::RedisCluster;
use crate::support::redis::RedisServer;
use crate::support::tls::TlsRedis;

/// Where a side keeps its counters.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StoreKind {
    /// In memory, or nowhere.
    Memory,
    Standalone,
    /// A standalone Redis that is reached over TLS.
    Tls,
    /// Three primaries without replicas.
    Cluster,
}

/// A running store.
pub enum Store {
    Memory,
    Standalone(RedisServer),
    Tls(Box<TlsRedis>),
    Cluster(RedisCluster),
}

impl Store {
    /// Starts it; pinned beside the server or free.
    pub fn start(kind: StoreKind, pinned: bool) -> Self {
        let store = match kind {
            StoreKind::Memory => Some(Self::Memory),
            StoreKind::Standalone => RedisServer::start().map(Self::Standalone),
            StoreKind::Tls => {
                TlsRedis::start(&["127.0.0.1"], false).map(|redis| Self::Tls(Box::new(redis)))
            }
            StoreKind::Cluster => RedisCluster::start(0).map(Self::Cluster),
        };
        let store = store.expect("redis-server");
        if pinned {
            store.pids().for_each(|pid| pin(pid, OTHER_CORE));
        }
        store
    }

    /// The processes of Redis.
    pub fn servers(&self) -> &[RedisServer] {
        match self {
            Self::Memory => &[],
            Self::Standalone(server) => std::slice::from_ref(server),
            Self::Tls(redis) => std::slice::from_ref(&redis.server),
            Self::Cluster(cluster) => &cluster.nodes,
        }
    }

    pub fn pids(&self) -> impl Iterator<Item = u32> {
        self.servers().iter().map(RedisServer::pid)
    }

    /// The settings of a tollgate that uses it.
    pub fn settings(&self) -> Vec<String> {
        match self {
            Self::Memory => Vec::new(),
            Self::Standalone(server) => vec![format!("redis.url={}", server.url())],
            Self::Tls(redis) => vec![
                format!("redis.url={}", redis.url()),
                format!("redis.tls.ca_file={}", redis.path("ca.crt")),
            ],
            Self::Cluster(cluster) => vec![
                "redis.topology=cluster".to_owned(),
                format!("redis.nodes={}", cluster.addresses()),
            ],
        }
    }
}

/// The stores of both sides of a comparison; one if they are of the same kind.
pub struct Stores(Vec<(StoreKind, Store)>);

impl Stores {
    /// Starts one of each kind.
    pub fn start(kinds: [StoreKind; 2], pinned: bool) -> Self {
        let [first, second] = kinds;
        let distinct = if first == second { vec![first] } else { vec![first, second] };
        Self(distinct.into_iter().map(|kind| (kind, Store::start(kind, pinned))).collect())
    }

    /// The store of this kind, which was started.
    pub fn get(&self, kind: StoreKind) -> &Store {
        let (_, store) = self.0.iter().find(|(started, _)| *started == kind).expect("its store");
        store
    }
}
