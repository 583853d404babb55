//! The instruments of the registry, which keeps what operators change.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::telemetry::sharded::ShardedCounter;

/// The registry of operators' changes.
#[derive(Debug, Default)]
pub struct RegistryMetrics {
    /// 1 while it can be reached.
    pub up: Gauge,
    /// 1 while it takes writes.
    pub writable: Gauge,
    /// The revision that is in force; 0 during a full read.
    pub revision: Gauge,
    /// Records that could not be read and were skipped.
    pub unreadable_records: Counter,
    /// Clients, including recently expired ones.
    pub clients: Gauge,
    /// Plans of clients.
    pub plans: Gauge,
    /// Descriptors whose client names a plan that is not there.
    pub plan_missing: ShardedCounter,
}

impl RegistryMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "registry_up",
            "1 while the registry of operators' changes is reachable",
            self.up.clone(),
        );
        registry.register(
            "registry_writable",
            "1 while the registry takes writes, by a probe each minute and by every change",
            self.writable.clone(),
        );
        registry.register(
            "registry_revision",
            "Revision of the registry in force; 0 during a full read",
            self.revision.clone(),
        );
        registry.register(
            "unreadable_records",
            "Records of the registry that could not be read and were skipped",
            self.unreadable_records.clone(),
        );
        registry.register(
            "clients",
            "Clients with limits of their own or a plan",
            self.clients.clone(),
        );
        registry.register("plans", "Plans of clients", self.plans.clone());
        registry.register(
            "plan_missing",
            "Descriptors decided without the plan of their client, because it does not exist",
            self.plan_missing.clone(),
        );
    }
}
