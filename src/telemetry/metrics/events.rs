//! The instruments of events of limits and of their delivery.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::labels::ResultLabel;

/// Events, and those that did not arrive.
#[derive(Clone, Debug, Default)]
pub struct EventMetrics {
    happened: Family<ThresholdLabel, Counter>,
    dropped: Family<SinkLabel, Counter>,
    deliveries: Family<ResultLabel, Counter>,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ThresholdLabel {
    threshold: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct SinkLabel {
    sink: &'static str,
}

impl EventMetrics {
    /// Counts an event.
    pub fn happened(&self, threshold: &'static str) {
        self.happened.get_or_create(&ThresholdLabel { threshold }).inc();
    }

    /// Counts events that `sink` did not get.
    pub fn dropped(&self, sink: &'static str, count: u64) {
        self.dropped.get_or_create(&SinkLabel { sink }).inc_by(count);
    }

    /// Counts a request to the webhook, with its `result`.
    pub fn delivered(&self, result: &'static str) {
        self.deliveries.get_or_create(&ResultLabel { result }).inc();
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        for threshold in ["near", "reached"] {
            drop(self.happened.get_or_create(&ThresholdLabel { threshold }));
        }
        for sink in ["watch", "webhook"] {
            drop(self.dropped.get_or_create(&SinkLabel { sink }));
        }
        for result in ["ok", "failed"] {
            drop(self.deliveries.get_or_create(&ResultLabel { result }));
        }
        registry.register(
            "limit_events",
            "Limits that have come to a threshold, while somebody listens",
            self.happened.clone(),
        );
        registry.register(
            "limit_events_dropped",
            "Events that a receiver did not get, by kind of receiver",
            self.dropped.clone(),
        );
        registry.register(
            "webhook_deliveries",
            "Requests to the webhook of events, by result",
            self.deliveries.clone(),
        );
    }
}
