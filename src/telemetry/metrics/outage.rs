//! The instruments of outages: breakers, shares, and what the store is told afterwards.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::labels::{AnswerLabel, StateLabel};
use crate::telemetry::sharded::ShardedCounter;

/// Counts of events while the store is late or away.
#[derive(Debug, Default)]
pub struct OutageMetrics {
    /// Claims allowed because the store failed.
    pub allowed: ShardedCounter,
    /// Claims denied because the store failed.
    pub denied: ShardedCounter,
    /// Claims left to the caller because the store failed.
    pub unanswered: ShardedCounter,
    /// Claims allowed by a share.
    pub locally_allowed: ShardedCounter,
    /// Claims denied by a share.
    pub locally_denied: ShardedCounter,
    breakers: Family<StateLabel, Gauge>,
    /// The number of replicas by which shares are made.
    pub replicas_seen: Gauge,
    /// Counters of shares.
    pub share_keys: Gauge,
    /// Counters with charges that the store does not know.
    pub untold_keys: Gauge,
    /// Counters of which charges are not told, for want of room.
    pub untold_dropped: Counter,
    /// Hits that the store was told.
    pub told_hits: Counter,
    /// Hits of limits that settle, which no counter has.
    pub unbooked_hits: ShardedCounter,
    /// Answers that came after their request was decided without them.
    pub late_answers: Counter<u64, AtomicU64>,
    /// Hits of late answers that are counted once and not twice.
    pub late_settled: Counter,
    /// Requests that waited longer because this machine was late itself.
    pub own_lateness: Counter<u64, AtomicU64>,
}

impl OutageMetrics {
    /// Shows how many connections are in `state`.
    pub fn show_breakers(&self, state: &'static str, connections: usize) {
        let connections = i64::try_from(connections).unwrap_or(i64::MAX);
        self.breakers.get_or_create(&StateLabel { state }).set(connections);
    }

    pub(super) fn register(&mut self, registry: &mut Registry) {
        let degraded: Family<AnswerLabel, ShardedCounter> = Family::default();
        let answer = |answer| degraded.get_or_create_owned(&AnswerLabel { answer });
        self.allowed = answer("allow");
        self.denied = answer("deny");
        self.unanswered = answer("error");
        self.locally_allowed = answer("local_allow");
        self.locally_denied = answer("local_deny");
        registry.register(
            "degraded_claims",
            "Limits decided without the store, by answer",
            degraded,
        );
        registry.register(
            "store_breaker",
            "Connections to the store, by state of their circuit breaker",
            self.breakers.clone(),
        );
        registry.register(
            "replicas_seen",
            "Replicas by which a limit is shared while the store is away",
            self.replicas_seen.clone(),
        );
        registry.register(
            "share_keys",
            "Counters of shares of limits, from outages of the store",
            self.share_keys.clone(),
        );
        registry.register(
            "untold_keys",
            "Counters with hits that the store does not know yet",
            self.untold_keys.clone(),
        );
        registry.register(
            "untold_dropped",
            "Counters whose hits during an outage are not told to the store, for want of room",
            self.untold_dropped.clone(),
        );
        registry.register(
            "told_hits",
            "Hits of outages that the store was told afterwards",
            self.told_hits.clone(),
        );
        self.register_late(registry);
    }

    fn register_late(&self, registry: &mut Registry) {
        registry.register(
            "unbooked_hits",
            "Hits to be booked by a limit that settles, which were lost without the store",
            self.unbooked_hits.clone(),
        );
        registry.register(
            "late_answers",
            "Answers of the store that came after their request was decided without them",
            self.late_answers.clone(),
        );
        registry.register(
            "late_answers_settled",
            "Limits charged by the store and a share for one request, settled by a late answer",
            self.late_settled.clone(),
        );
        registry.register(
            "own_lateness",
            "Requests that waited longer because this machine was late itself",
            self.own_lateness.clone(),
        );
    }
}
