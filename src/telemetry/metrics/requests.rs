//! The instruments of requests as a whole.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::telemetry::sharded::ShardedCounter;

/// Counts of requests.
#[derive(Debug, Default)]
pub struct RequestMetrics {
    /// Answered OK.
    pub ok: ShardedCounter,
    /// Answered OVER_LIMIT.
    pub over_limit: ShardedCounter,
    /// Answered with a gRPC error: no domain or no descriptors.
    pub invalid: ShardedCounter,
    /// Of callers that may not ask about the domain.
    pub forbidden: ShardedCounter,
    /// Decided by their callers.
    pub unavailable: ShardedCounter,
    /// For domains that no policy and no client names.
    pub unknown_domain: ShardedCounter,
    /// Larger than the bounds.
    pub out_of_bounds: ShardedCounter,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Code {
    code: &'static str,
}

impl RequestMetrics {
    pub(super) fn register(&mut self, registry: &mut Registry) {
        let requests: Family<Code, ShardedCounter> = Family::default();
        let code = |code| requests.get_or_create_owned(&Code { code });
        self.ok = code("ok");
        self.over_limit = code("over_limit");
        self.invalid = code("invalid_argument");
        self.forbidden = code("permission_denied");
        self.unavailable = code("unavailable");
        registry.register("requests", "Requests answered, by code", requests);
        registry.register(
            "unknown_domain_requests",
            "Requests for domains that no policy and no client names; they pass",
            self.unknown_domain.clone(),
        );
        registry.register(
            "out_of_bounds_requests",
            "Requests beyond the bounds; they are over limit",
            self.out_of_bounds.clone(),
        );
    }
}
