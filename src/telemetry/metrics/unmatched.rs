//! Descriptors that no rule limits: by a client or an override alone, or by nothing.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::by_label::ByDomain;
use super::decisions::{LabelledMetrics, LimitOf};
use crate::telemetry::sharded::ShardedCounter;

/// The source of the limit of a descriptor that no rule matches.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Unruled {
    /// The override in the descriptor.
    Override,
    /// The client that the descriptor names.
    Client,
}

impl Unruled {
    /// The value of the labels `rule` and `limit`.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Override => LimitOf::OVERRIDE,
            Self::Client => LimitOf::CLIENT,
        }
    }
}

/// Descriptors without a rule.
#[derive(Debug, Default)]
pub(super) struct Unmatched {
    pub(super) overrides: ByDomain<Arc<LabelledMetrics>>,
    pub(super) clients: ByDomain<Arc<LabelledMetrics>>,
    no_rule: ByDomain<ShardedCounter>,
    family: Family<UnmatchedLabels, ShardedCounter>,
    of_unknown_domain: ShardedCounter,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct UnmatchedLabels {
    domain: String,
    reason: &'static str,
}

impl Unmatched {
    /// Counts a descriptor of `domain`, which a policy or a client names, that no rule matches.
    pub(super) fn no_rule(&self, domain: &[u8]) {
        let make = |domain: &str| {
            let labels = UnmatchedLabels { domain: domain.to_owned(), reason: "no_rule" };
            self.family.get_or_create_owned(&labels)
        };
        self.no_rule.count(domain, make, ShardedCounter::inc);
    }

    /// Counts a descriptor of a domain that no policy and no client names.
    pub(super) fn unknown_domain(&self) {
        self.of_unknown_domain.inc();
    }

    pub(super) fn register(&mut self, registry: &mut Registry) {
        // One label for all of them, because callers choose their names.
        let unknown = UnmatchedLabels { domain: "(unknown)".to_owned(), reason: "unknown_domain" };
        self.of_unknown_domain = self.family.get_or_create_owned(&unknown);
        registry.register(
            "unmatched",
            "Descriptors that nothing limits, by domain and reason; they pass",
            self.family.clone(),
        );
    }
}
