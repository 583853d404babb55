//! The store in a Redis Cluster.
//!
//! * `nodes`: a pipe for each primary. `route`: the way of a call to the right one.
//! * `rounds`: requests over several slots.

mod nodes;
mod rounds;
mod route;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use self::nodes::Nodes;
use self::rounds::Rounds;
use super::breaker::BreakerState;
use super::health::Counts;
use super::options::StoreOptions;
use crate::domain::{Commit, Group, Key, Settled, Settlement};
use crate::redis::cluster::Cluster;
use crate::redis::{Connector, RedisSettings};
use crate::store::split::{Split, is_split, slot_of};
use crate::store::{Answer, Deadline, StoreError};

/// The time in which a settlement follows redirections. After that it is sent anew.
const REDIRECTED: Duration = Duration::from_millis(100);

/// The store of one runtime.
#[derive(Debug)]
pub(super) struct ClusterStore {
    nodes: Arc<Nodes>,
    rounds: Arc<Rounds>,
}

impl ClusterStore {
    /// A store whose tasks are on the current tokio runtime.
    ///
    /// # Panics
    /// Panics outside a tokio runtime.
    pub(super) fn start(
        cluster: Arc<Cluster>,
        connector: Connector,
        settings: &RedisSettings,
        options: StoreOptions,
        counts: Arc<Counts>,
    ) -> Self {
        let suspects = options.suspects.clone();
        let nodes = Nodes::start(cluster, connector, settings, options, counts);
        Self { rounds: Arc::new(Rounds::new(Arc::clone(&nodes), suspects)), nodes }
    }

    /// True once the first attempts to read the map and to connect to the primaries have ended.
    pub(super) fn has_tried(&self) -> bool {
        self.nodes.have_tried()
    }

    /// True while every slot has a node and every connection is in use.
    pub(super) fn is_up(&self) -> bool {
        self.nodes.are_up()
    }

    /// The states of the breakers.
    pub(super) fn breakers(&self) -> Vec<BreakerState> {
        self.nodes.breakers()
    }

    /// True if several calls decide `group`.
    pub(super) fn splits(group: &Group) -> bool {
        is_split(group)
    }

    pub(super) async fn decide(&self, group: &Group, commit: Commit, deadline: Deadline) -> Answer {
        let claims = group.claims.len();
        if !is_split(group) {
            // Without a counter no server is needed, and any slot will do.
            let slot = slot_of(group).unwrap_or_default();
            let deadline = deadline.asked_now();
            return match route::rule(&self.nodes, slot, group, commit, deadline).await {
                Ok(ruling) => Answer::full(ruling.ruled.readings),
                Err(missed) => Answer {
                    late: missed.late.into_iter().collect(),
                    ..Answer::none(claims, missed.error)
                },
            };
        }
        match (Split::new(group.clone()), commit) {
            (Err(error), _) => Answer::none(claims, error),
            (Ok(split), Commit::Together) => self.rounds.together(split, group, deadline).await,
            (Ok(split), Commit::Each | Commit::Never) => {
                self.rounds.each(split, commit, claims, deadline).await
            }
        }
    }

    pub(super) async fn settle(&self, settlement: Settlement) -> Result<Settled, StoreError> {
        let deadline = Deadline::from(Instant::now() + REDIRECTED);
        route::settle(&self.nodes, settlement, deadline).await
    }

    pub(super) async fn forget(&self, keys: &[Key], deadline: Deadline) -> Result<u32, StoreError> {
        let mut of_slots = BTreeMap::<u16, Vec<Key>>::new();
        for key in keys {
            of_slots.entry(key.slot()).or_default().push(key.clone());
        }
        let forget = |(slot, keys)| route::forget(&self.nodes, slot, keys, deadline);
        let forgotten = join_all(of_slots.into_iter().map(forget)).await;
        forgotten.into_iter().try_fold(0_u32, |sum, count| Ok(sum.saturating_add(count?)))
    }
}
