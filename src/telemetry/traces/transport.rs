//! One export: a batch of spans to the collector, over gRPC or over HTTP. It does not retry.
//!
//! Source: the OTLP specification. The exporter of the SDK is not used: it reads variables of the
//! environment beside the settings, and does not say how many spans the collector rejected.

use bytes::Bytes;
use http::uri::Scheme;
use http::{HeaderMap, StatusCode, Uri};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message as _;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint as TonicEndpoint};
use tonic::{Code, Extensions, Status};

use super::settings::{Protocol, TraceSettings};
use crate::outward::{Dialer, Post, chain};
use crate::settings::Headers;
use crate::tls::{Paths, PemPath, TlsFault};

/// The path of OTLP over HTTP, where the endpoint has none.
const PATH: &str = "/v1/traces";

const USER_AGENT: &str = concat!("tollgate/", env!("CARGO_PKG_VERSION"));

/// The statuses of HTTP after which OTLP asks for another attempt.
const LATER: [StatusCode; 4] = [
    StatusCode::TOO_MANY_REQUESTS,
    StatusCode::BAD_GATEWAY,
    StatusCode::SERVICE_UNAVAILABLE,
    StatusCode::GATEWAY_TIMEOUT,
];

/// A failed export.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) reason: String,
    /// The same export may succeed later.
    pub(super) retry: bool,
}

/// The way to the collector.
#[derive(Debug)]
pub(super) enum Transport {
    Grpc(Box<Grpc>),
    Http(Box<Post>),
}

/// A channel to the collector, and the headers of each call.
#[derive(Debug)]
pub(super) struct Grpc {
    client: TraceServiceClient<Channel>,
    headers: HeaderMap,
}

impl Transport {
    /// The way that `settings` describe; none without an endpoint. It connects with the first
    /// export.
    ///
    /// # Errors
    /// Fails if the files of TLS cannot be used.
    pub(super) fn new(settings: &TraceSettings) -> Result<Option<Self>, TlsFault> {
        let Some(endpoint) = &settings.endpoint else { return Ok(None) };
        let alpn: &[u8] = match settings.protocol {
            Protocol::Grpc => b"h2",
            Protocol::Http => b"http/1.1",
        };
        let dialer = Dialer::new(endpoint, paths(settings), alpn, settings.timeout)?;
        let headers = settings.headers.as_ref().map(Headers::to_map).unwrap_or_default();
        Ok(Some(match settings.protocol {
            Protocol::Http => {
                let post = Post::new(endpoint, dialer, headers, ("application/x-protobuf", PATH));
                Self::Http(Box::new(post))
            }
            Protocol::Grpc => {
                let channel = TonicEndpoint::from(bare(endpoint.uri()));
                let channel = channel.origin(endpoint.uri().clone()).user_agent(USER_AGENT);
                let channel = channel.map_err(|e| TlsFault::new("traces.endpoint", chain(&e)))?;
                let channel = channel.connect_with_connector_lazy(dialer);
                Self::Grpc(Box::new(Grpc { client: TraceServiceClient::new(channel), headers }))
            }
        }))
    }

    /// Sends `request`; returns how many of its spans the collector rejected.
    pub(super) async fn export(
        &mut self,
        request: &ExportTraceServiceRequest,
    ) -> Result<u64, Failure> {
        let response = match self {
            Self::Http(post) => export_over_http(post, request).await?,
            Self::Grpc(grpc) => {
                let Grpc { client, headers } = &mut **grpc;
                let metadata = MetadataMap::from_headers(headers.clone());
                let call =
                    tonic::Request::from_parts(metadata, Extensions::default(), request.clone());
                client.export(call).await.map_err(|status| refused(&status))?.into_inner()
            }
        };
        let partial = response.partial_success.unwrap_or_default();
        Ok(u64::try_from(partial.rejected_spans).unwrap_or_default())
    }
}

/// The same server without TLS: of a URL with `https`, tonic asks for TLS of its own.
fn bare(uri: &Uri) -> Uri {
    let mut parts = uri.clone().into_parts();
    parts.scheme = Some(Scheme::HTTP);
    Uri::from_parts(parts).unwrap_or_default()
}

fn paths(settings: &TraceSettings) -> Paths {
    let tls = &settings.tls;
    let file = |setting, path: &Option<_>| PemPath { setting, path: path.clone() };
    Paths {
        ca: file("traces.tls.ca_file", &tls.ca_file),
        cert: file("traces.tls.cert_file", &tls.cert_file),
        key: file("traces.tls.key_file", &tls.key_file),
    }
}

/// The failure of a call. What the collector says of it may repeat a token, and is not told.
fn refused(status: &Status) -> Failure {
    // Of this side alone, such as a connection that is refused.
    let cause = std::error::Error::source(status).map(|cause| format!(": {}", chain(cause)));
    let later = matches!(
        status.code(),
        Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::DataLoss
            | Code::ResourceExhausted
    );
    let (code, retry) = (status.code(), later || cause.is_some());
    Failure { reason: format!("gRPC status {code:?}{}", cause.unwrap_or_default()), retry }
}

/// Sends `export` over HTTP.
async fn export_over_http(
    post: &mut Post,
    export: &ExportTraceServiceRequest,
) -> Result<ExportTraceServiceResponse, Failure> {
    let body = Bytes::from(export.encode_to_vec());
    let (status, body) = post.send(body).await.map_err(|reason| Failure { reason, retry: true })?;
    if !status.is_success() {
        let retry = LATER.contains(&status);
        return Err(Failure { reason: format!("HTTP status {status}"), retry });
    }
    // The spans have arrived, whatever this says.
    Ok(ExportTraceServiceResponse::decode(body).unwrap_or_default())
}
