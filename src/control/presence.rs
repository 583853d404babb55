//! Keeps the count of the replicas that share the store: a heartbeat about every second.
//!
//! Each replica decides by a share of its own while the store is away, so it has to know how many
//! there are before that happens. The beats go to the registry, which is where the counters are.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use super::registry::Registry;
use crate::limiter::layers::failover::replicas::Replicas;
use crate::telemetry::metrics::Metrics;

/// The interval between two beats, give or take a tenth.
const EVERY: Duration = Duration::from_secs(1);

/// The longest wait for the first beat and the last one.
const PATIENCE: Duration = Duration::from_secs(1);

/// Notes this process among the replicas once. Returns true if the beat was answered.
pub async fn beat<R: Registry>(registry: &R, replicas: &Replicas, metrics: &Metrics) -> bool {
    // The follower reports that the registry cannot be reached.
    let beat = tokio::time::timeout(PATIENCE, registry.beat(replicas.id())).await;
    let seen = beat.ok().and_then(Result::ok);
    if let Some(seen) = &seen {
        replicas.note(seen);
    }
    metrics.outage.replicas_seen.set(replicas.now().replicas.into());
    seen.is_some()
}

/// Beats until it is dropped. A loss of the store is over when a beat is answered while
/// `store_is_up`.
pub async fn run<R: Registry>(
    registry: &R,
    replicas: &Replicas,
    metrics: &Metrics,
    store_is_up: impl Fn() -> bool,
) {
    let random = RandomState::new();
    for beats in 0_u64.. {
        let tenth = (random.hash_one(beats) % 1_001) as f64 / 1_000.0;
        tokio::time::sleep(EVERY.mul_f64(0.9 + 0.2 * tenth)).await;
        if beat(registry, replicas, metrics).await && store_is_up() {
            replicas.end_loss();
        }
    }
}

/// Leaves the replicas, as far as the registry can be reached.
pub async fn leave<R: Registry>(registry: &R, replicas: &Replicas) {
    drop(tokio::time::timeout(PATIENCE, registry.leave(replicas.id())).await);
}
