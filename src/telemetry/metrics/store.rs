//! The instruments of the store of counters, and of the layers that spare it.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::durations;
use crate::telemetry::sharded::{Bounds, DurationHistogram, ShardedCounter, SizeHistogram};

/// The groups of a call: up to 64 claims, and a single group may have more.
const GROUPS: Bounds = [1, 2, 3, 4, 6, 8, 12, 16, 20, 24, 32, 40, 48, 56, 64];

/// The failures of stores, by kind.
#[derive(Debug, Default)]
pub struct StoreErrors {
    /// No answer in time.
    pub timeout: ShardedCounter,
    /// Not connected, or too many requests wait.
    pub unavailable: ShardedCounter,
    /// Refused by the store.
    pub rejected: ShardedCounter,
    /// An answer that cannot be read.
    pub protocol: ShardedCounter,
}

/// The calls that decide in Redis.
#[derive(Clone, Debug)]
pub struct CallMetrics {
    /// The time from sending a call to its answer.
    pub round_trips: DurationHistogram,
    /// The requests that a call decides.
    pub groups: SizeHistogram,
}

impl Default for CallMetrics {
    fn default() -> Self {
        Self {
            round_trips: DurationHistogram::with_bounds(&durations::BOUNDS),
            groups: SizeHistogram::with_bounds(&GROUPS),
        }
    }
}

/// The store, and the layers over it.
#[derive(Debug, Default)]
pub struct StoreMetrics {
    /// Requests that the store did not decide.
    pub errors: StoreErrors,
    /// Requests denied by the deny cache, without the store.
    pub remembered_denials: ShardedCounter,
    /// Hits admitted from leases, without the store.
    pub leased_hits: ShardedCounter,
    /// Leased hits that were not spent before their lease ended.
    pub stranded_hits: ShardedCounter,
    /// 1 while the store can be reached.
    pub up: Gauge,
    /// Counters held in memory.
    pub memory_counters: Gauge,
    /// The memory of these counters.
    pub memory_bytes: Gauge,
    /// Stored states in a format that this version cannot read. They count as empty.
    pub unreadable_states: Counter<u64, AtomicU64>,
    /// The calls that decide.
    pub calls: CallMetrics,
    /// Calls sent and not yet answered.
    pub calls_in_flight: Gauge,
    /// The number of times that the primary of Redis has moved.
    pub redis_switches: Counter<u64, AtomicU64>,
    redis_primary: Family<AddressLabel, Gauge>,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Kind {
    kind: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct AddressLabel {
    address: String,
}

impl StoreMetrics {
    /// Shows this address of the primary of Redis, and no other.
    pub fn show_primary(&self, address: Option<String>) {
        let Some(address) = address else { return };
        let labels = AddressLabel { address };
        if self.redis_primary.get(&labels).is_none() {
            self.redis_primary.clear();
            self.redis_primary.get_or_create(&labels).set(1);
        }
    }

    pub(super) fn register(&mut self, registry: &mut Registry) {
        let errors: Family<Kind, ShardedCounter> = Family::default();
        let kind = |kind| errors.get_or_create_owned(&Kind { kind });
        self.errors = StoreErrors {
            timeout: kind("timeout"),
            unavailable: kind("unavailable"),
            rejected: kind("rejected"),
            protocol: kind("protocol"),
        };
        registry.register(
            "store_errors",
            "Requests that the store did not decide, by kind of failure",
            errors,
        );
        registry.register(
            "store_up",
            "1 while all connections to the store are up",
            self.up.clone(),
        );
        self.register_layers(registry);
        self.register_memory(registry);
        self.register_redis(registry);
    }

    fn register_layers(&self, registry: &mut Registry) {
        registry.register(
            "remembered_denials",
            "Requests denied by the deny cache, without the store",
            self.remembered_denials.clone(),
        );
        registry.register(
            "leased_hits",
            "Hits admitted from leases, without the store",
            self.leased_hits.clone(),
        );
        registry.register(
            "stranded_hits",
            "Leased hits that were not spent before their lease ended",
            self.stranded_hits.clone(),
        );
    }

    fn register_memory(&self, registry: &mut Registry) {
        registry.register(
            "memory_counters",
            "Counters held in the memory of this process",
            self.memory_counters.clone(),
        );
        registry.register_with_unit(
            "memory_counters",
            "Memory of the counters held in the memory of this process",
            Unit::Bytes,
            self.memory_bytes.clone(),
        );
        registry.register(
            "unreadable_states",
            "Stored counters in a format that this version cannot read; they count as empty",
            self.unreadable_states.clone(),
        );
    }

    fn register_redis(&self, registry: &mut Registry) {
        registry.register_with_unit(
            "store_round_trip",
            "Time from sending a call of the script to Redis to its answer",
            Unit::Seconds,
            self.calls.round_trips.clone(),
        );
        registry.register(
            "store_batch_groups",
            "Requests that one call of the script decides",
            self.calls.groups.clone(),
        );
        registry.register(
            "store_calls_in_flight",
            "Calls of the script sent to Redis and not yet answered",
            self.calls_in_flight.clone(),
        );
        registry.register(
            "redis_switches",
            "Times that the primary of Redis has moved, by the word of the sentinels",
            self.redis_switches.clone(),
        );
        registry.register(
            "redis_primary",
            "1 for the address of the primary of Redis",
            self.redis_primary.clone(),
        );
    }
}
