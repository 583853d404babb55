//! The instruments of the control plane.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::labels::ResultLabel;

/// The stream of a control plane, and its responses.
#[derive(Debug, Default)]
pub struct XdsMetrics {
    /// 1 while a stream is up.
    pub connected: Gauge,
    /// Responses that were put in force.
    pub ok: Counter,
    /// Responses that were refused.
    pub refused: Counter,
    /// Responses of the content that is in force.
    pub unchanged: Counter,
    /// 1 while the policies in force are those of an earlier process.
    pub stale: Gauge,
    /// The time of the last response that was not refused, in seconds since 1970.
    pub last_accepted: Gauge,
}

impl XdsMetrics {
    pub(super) fn register(&mut self, registry: &mut Registry) {
        registry.register(
            "xds_connected",
            "1 while a stream of the control plane is up",
            self.connected.clone(),
        );
        let responses: Family<ResultLabel, Counter> = Family::default();
        let of = |result| responses.get_or_create_owned(&ResultLabel { result });
        (self.ok, self.refused, self.unchanged) = (of("ok"), of("refused"), of("unchanged"));
        registry.register("xds_responses", "Responses of the control plane, by result", responses);
        registry.register(
            "xds_stale",
            "1 while the policies are those that an earlier process kept in Redis",
            self.stale.clone(),
        );
        registry.register_with_unit(
            "xds_last_accepted_timestamp",
            "Time since 1970 of the last response that was not refused; 0 without any",
            Unit::Seconds,
            self.last_accepted.clone(),
        );
    }
}
