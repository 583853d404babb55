//! The store in Redis, shared by all replicas that use it.
//!
//! One atomic script (`script/lua/`) decides a whole request on the clock of Redis. Requests that
//! wait at the same time share a call. The failover layer, not this module, decides requests while
//! Redis is down.
//!
//! * `script`: the script in parts, its arguments and its reply as typed values.
//! * `queue`: the requests that wait to be sent, and the answers to them.
//! * `decided`: the answer of Redis to a request, or why there is none.
//! * `batch`: the task that sends them and owns the connection; `pipeline`: the commands in flight.
//! * `telling`: the charges that Redis learns after an outage.
//! * `breaker`: when calls are refused at once, because Redis is late or away.
//! * `health`: the state of the connection; `notices`: the log lines about it.
//! * `pipe`: all of that for one server; `decide`: its answer to a request; `node`: the server as a
//!   node of a cluster. `options`: what a store is given.
//! * `cluster`: a pipe for each primary of a Redis Cluster, and requests over several slots.
//!
//! Requires Redis 5 or later, for scripts that read the time before they write.

mod batch;
mod breaker;
mod cluster;
mod decide;
mod decided;
mod health;
mod node;
mod notices;
mod options;
mod pipe;
mod pipeline;
mod queue;
pub mod script;
mod telling;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::runtime::Handle;

pub use self::breaker::BreakerState;
use self::cluster::ClusterStore;
use self::health::Counts;
pub use self::notices::Notices;
pub use self::options::{MAX_WAITING, StoreOptions};
use self::pipe::Pipe;
use super::{Answer, Deadline, LimitStore, StoreError};
use crate::domain::{Commit, Group, Key, Settled, Settlement};
use crate::redis::{Connector, RedisSettings, SetupError};

/// Counters in Redis.
///
/// # Concurrency
/// Clones share their connections and tasks. Make one store per runtime.
#[derive(Clone, Debug)]
pub struct RedisStore {
    servers: Servers,
    counts: Arc<Counts>,
}

/// The servers that decide.
#[derive(Clone, Debug)]
enum Servers {
    One(Arc<Pipe>),
    Cluster(Arc<ClusterStore>),
}

impl RedisStore {
    /// Makes a store that connects in the background, in tasks on the current tokio runtime. Redis
    /// need not be up yet. The tasks end when the last clone is dropped.
    ///
    /// # Errors
    /// Fails if the settings lead to no Redis.
    ///
    /// # Panics
    /// Panics outside a tokio runtime.
    pub fn connect(settings: &RedisSettings) -> Result<Self, SetupError> {
        let connector = settings.connector()?;
        Ok(Self::connect_with(settings, connector, StoreOptions::default()))
    }

    /// [`connect`](Self::connect) behind `connector`, with these options.
    ///
    /// # Panics
    /// Panics outside a tokio runtime.
    pub fn connect_with(
        settings: &RedisSettings,
        connector: Connector,
        options: StoreOptions,
    ) -> Self {
        let counts = Arc::<Counts>::default();
        let servers = if let Some(cluster) = connector.cluster() {
            let (cluster, counts) = (Arc::clone(cluster), Arc::clone(&counts));
            let store = ClusterStore::start(cluster, connector, settings, options, counts);
            Servers::Cluster(Arc::new(store))
        } else {
            let (runtime, counts) = (Handle::current(), Arc::clone(&counts));
            let pipe = Pipe::start(&runtime, settings, connector, None, &options, counts);
            Servers::One(Arc::new(pipe))
        };
        Self { servers, counts }
    }

    /// True once the first attempt to connect has succeeded or failed.
    pub fn has_tried(&self) -> bool {
        match &self.servers {
            Servers::One(pipe) => pipe.has_tried(),
            Servers::Cluster(store) => store.has_tried(),
        }
    }

    /// True while Redis decides: there is a connection, and its breaker is closed. In a cluster,
    /// while every connection is in use and every slot has a node.
    pub fn is_up(&self) -> bool {
        match &self.servers {
            Servers::One(pipe) => pipe.is_up(),
            Servers::Cluster(store) => store.is_up(),
        }
    }

    /// The state of the breaker of each connection.
    pub fn breakers(&self) -> Vec<BreakerState> {
        match &self.servers {
            Servers::One(pipe) => vec![pipe.breaker()],
            Servers::Cluster(store) => store.breakers(),
        }
    }

    /// The number of answers so far that came after their call was decided without them.
    pub fn late_answers(&self) -> u64 {
        self.counts.late.load(Ordering::Relaxed)
    }

    /// The number of calls so far that waited longer because this process was late itself.
    pub fn extended_calls(&self) -> u64 {
        self.counts.extended.load(Ordering::Relaxed)
    }

    /// The number of stored states so far that could not be decoded. Such a state counts as empty.
    pub fn unreadable_states(&self) -> u64 {
        self.counts.unreadable.load(Ordering::Relaxed)
    }

    /// The number of calls of the script sent and not yet answered.
    pub fn calls_in_flight(&self) -> u64 {
        // In this order, so that the difference is not below zero.
        let ended = self.counts.ended.load(Ordering::Acquire);
        self.frames().saturating_sub(ended)
    }

    /// The number of calls of the script sent so far.
    pub fn frames(&self) -> u64 {
        self.counts.frames.load(Ordering::Relaxed)
    }
}

impl LimitStore for RedisStore {
    async fn decide(&self, group: &Group, commit: Commit, deadline: Deadline) -> Answer {
        match &self.servers {
            Servers::One(pipe) => decide::decide(pipe, group, commit, deadline).await,
            Servers::Cluster(store) => store.decide(group, commit, deadline).await,
        }
    }

    async fn forget(&self, keys: &[Key], deadline: Deadline) -> Result<u32, StoreError> {
        if keys.is_empty() {
            return Ok(0);
        }
        match &self.servers {
            Servers::One(pipe) => {
                let forgotten = pipe.forget(keys.to_vec(), false, deadline).await;
                forgotten.map_err(|undecided| undecided.error)
            }
            Servers::Cluster(store) => store.forget(keys, deadline).await,
        }
    }

    async fn settle(&self, settlement: Settlement) -> Result<Settled, StoreError> {
        match &self.servers {
            Servers::One(pipe) => {
                let settled = pipe.settle(settlement, false).await;
                settled.map_err(|undecided| undecided.error)
            }
            Servers::Cluster(store) => store.settle(settlement).await,
        }
    }

    fn splits(&self, group: &Group) -> bool {
        match &self.servers {
            Servers::One(_) => false,
            Servers::Cluster(_) => ClusterStore::splits(group),
        }
    }
}
