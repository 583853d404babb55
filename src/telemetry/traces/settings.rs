//! The settings of traces.

use std::path::PathBuf;
use std::time::Duration;

use crate::outward::Endpoint;
use crate::settings::{Headers, Pairs, Ratio, Reader, SOME_TIME, section, words};

section! {
    /// Traces: spans of decisions, store calls and reloads, sent to an OTLP collector.
    pub struct TraceSettings in "traces" {
        /// URL of the collector, such as `http://otel-collector:4317`; unset = no traces. With
        /// `protocol: http` a URL without a path gets `/v1/traces`.
        endpoint: Option<Endpoint> = "",
        /// `grpc`, or `http` = protobuf over HTTP.
        protocol: Protocol = "grpc",
        /// Follow the caller: a sampled `traceparent` gives spans, another one gives none. `false`:
        /// `ratio` alone decides, by the trace.
        parent_based: bool = "true",
        /// Part of the traces that are sampled without a caller's decision, from 0 to 1.
        ratio: Ratio = "0",
        /// Attribute `service.name`.
        service_name: String = "tollgate",
        /// Further attributes of the service, such as
        /// `service.namespace=edge,deployment.environment.name=prod`.
        resource: Option<Pairs> = "",
        /// Headers of each export, such as `authorization=TOKEN,x-scope-orgid=a`.
        headers: Option<Headers> = "",
        /// File that holds `headers`. An alternative to it.
        headers_file: Option<PathBuf> = "",
        /// Time for one export, connecting included.
        timeout: Duration = "10s" in SOME_TIME..,
        /// Longest time that a span waits for others of its export.
        interval: Duration = "1s" in SOME_TIME..,
        /// Spans that wait for their export. Further ones are dropped, and counted.
        max_queue: usize = "4096" in 1..=1_000_000,
    }
    with {
        /// TLS.
        tls: TraceTlsSettings,
    }
}

section! {
    /// TLS to the collector, for an endpoint with `https://`. Files are read at every connection.
    pub struct TraceTlsSettings in "traces.tls" {
        /// File with the certificates of the authorities to trust, PEM; unset = those of the
        /// system.
        ca_file: Option<PathBuf> = "",
        /// File with the certificate of tollgate and its chain, PEM.
        cert_file: Option<PathBuf> = "",
        /// File with the key of `cert_file`, PEM: PKCS #8, PKCS #1 or SEC 1.
        key_file: Option<PathBuf> = "",
    }
}

/// The protocol of exports.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Protocol {
    /// gRPC.
    Grpc,
    /// Protobuf over HTTP/1.1.
    Http,
}

words!(Protocol { "grpc" => Grpc, "http" => Http });

impl TraceSettings {
    /// The rules that no type expresses.
    pub(crate) fn resolve(&mut self, reader: &mut Reader) {
        let file = self.headers_file.as_deref();
        reader.file("traces.headers", &mut self.headers, file);
        if self.service_name.is_empty() {
            reader.refuse("traces.service_name", "found \"\", expected a name");
        }
        let TraceTlsSettings { cert_file, key_file, .. } = &self.tls;
        for (name, file, other, absent) in [
            ("cert_file", cert_file, "key_file", key_file.is_none()),
            ("key_file", key_file, "cert_file", cert_file.is_none()),
        ] {
            if file.is_some() && absent {
                reader.refuse(&format!("traces.tls.{name}"), format!("set traces.tls.{other} too"));
            }
        }
        let tls = self.tls != TraceTlsSettings::default();
        if tls && self.endpoint.as_ref().is_some_and(|endpoint| !endpoint.is_https()) {
            reader.refuse("traces.endpoint", "has no TLS, but traces.tls is set; write https://");
        }
    }
}
