//! The instruments of the listeners: connections that are refused or cut, calls that find no
//! memory, handshakes, certificates.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::telemetry::sharded::ShardedGauge;

/// Connections, and certificates.
#[derive(Debug, Default)]
pub struct ListenerMetrics {
    /// Connections accepted.
    pub accepted: Counter,
    open: Family<ListenerLabel, Gauge>,
    streams: Family<ListenerLabel, ShardedGauge>,
    refused: Family<RefusedLabels, Counter>,
    cut: Family<RefusedLabels, Counter>,
    shed: Family<ListenerLabel, Counter>,
    handshakes: Family<ListenerLabel, Counter>,
    ends: Family<EndLabels, Gauge>,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ListenerLabel {
    listener: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct RefusedLabels {
    listener: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct EndLabels {
    listener: &'static str,
    certificate: &'static str,
}

/// The certificates of a listener.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CertificateOf {
    /// That of the listener, with its chain.
    Server,
    /// Those of the authorities of clients.
    Clients,
}

impl CertificateOf {
    const fn label(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Clients => "client_ca",
        }
    }
}

impl ListenerMetrics {
    /// The number of connections to `listener` that are open.
    pub fn open(&self, listener: &'static str) -> Gauge {
        self.open.get_or_create_owned(&ListenerLabel { listener })
    }

    /// The number of calls to `listener` in progress.
    pub fn streams(&self, listener: &'static str) -> ShardedGauge {
        self.streams.get_or_create_owned(&ListenerLabel { listener })
    }

    /// Counts a connection to `listener` that was closed before a request.
    pub fn refused(&self, listener: &'static str, reason: &'static str) {
        self.refused.get_or_create(&RefusedLabels { listener, reason }).inc();
    }

    /// Begins the series of `listener` at zero, so that the first event is a rise: calls that find
    /// no memory, and open connections that are closed for one of `reasons`.
    pub fn begin(&self, listener: &'static str, reasons: &[&'static str]) {
        drop(self.shed.get_or_create(&ListenerLabel { listener }));
        for reason in reasons {
            drop(self.cut.get_or_create(&RefusedLabels { listener, reason }));
        }
    }

    /// Counts an open connection to `listener` that tollgate closes.
    pub fn cut(&self, listener: &'static str, reason: &'static str) {
        self.cut.get_or_create(&RefusedLabels { listener, reason }).inc();
    }

    /// Counts a call to `listener` for which there is no memory.
    pub fn shed(&self, listener: &'static str) {
        self.shed.get_or_create(&ListenerLabel { listener }).inc();
    }

    /// Counts a handshake of TLS that has succeeded.
    pub fn handshake(&self, listener: &'static str) {
        self.handshakes.get_or_create(&ListenerLabel { listener }).inc();
    }

    /// Shows when a certificate ends, in seconds since 1970; none: there is no such certificate.
    pub fn show_end(&self, listener: &'static str, of: CertificateOf, end: Option<i64>) {
        let labels = EndLabels { listener, certificate: of.label() };
        match end {
            Some(end) => _ = self.ends.get_or_create(&labels).set(end),
            None => _ = self.ends.remove(&labels),
        }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("connections", "Connections accepted", self.accepted.clone());
        registry.register(
            "open_connections",
            "Connections that are open, by listener",
            self.open.clone(),
        );
        registry.register(
            "open_streams",
            "Calls and requests in progress, by listener",
            self.streams.clone(),
        );
        registry.register(
            "connections_refused",
            "Connections closed before a request, by listener and reason",
            self.refused.clone(),
        );
        registry.register(
            "connections_cut",
            "Open connections that were closed for what their peer did, by listener and reason",
            self.cut.clone(),
        );
        registry.register(
            "calls_shed",
            "Calls refused for lack of memory for calls that wait for their peers, by listener",
            self.shed.clone(),
        );
        registry.register(
            "tls_handshakes",
            "Handshakes of TLS that have succeeded, by listener",
            self.handshakes.clone(),
        );
        registry.register_with_unit(
            "tls_certificate_end_timestamp",
            "Time since 1970 at which a certificate of a listener ends, the first of its file",
            Unit::Seconds,
            self.ends.clone(),
        );
    }
}
