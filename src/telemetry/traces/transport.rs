//! One export: a batch of spans to the collector, over gRPC or over HTTP. It does not retry.
//!
//! Source: the OTLP specification. The exporter of the SDK is not used: it reads variables of the
//! environment beside the settings, and does not say how many spans the collector rejected.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message as _;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint as TonicEndpoint};
use tonic::{Code, Extensions, Status};

use super::dial::{Dialer, chain};
use super::settings::{Protocol, TraceSettings};
use crate::settings::Headers;
use crate::tls::TlsFault;

/// The path of OTLP over HTTP, where the endpoint has none.
const PATH: &str = "/v1/traces";

/// The largest answer that is read.
const MAX_ANSWER_BYTES: usize = 64 << 10;

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
    Grpc { client: TraceServiceClient<Channel>, headers: HeaderMap },
    Http(Http),
}

impl Transport {
    /// The way that `settings` describe; none without an endpoint. It connects with the first
    /// export.
    ///
    /// # Errors
    /// Fails if the files of TLS cannot be used.
    pub(super) fn new(settings: &TraceSettings) -> Result<Option<Self>, TlsFault> {
        let Some(endpoint) = &settings.endpoint else { return Ok(None) };
        let dialer = Dialer::new(endpoint, settings)?;
        let headers = headers(settings);
        Ok(Some(match settings.protocol {
            Protocol::Http => Self::Http(Http::new(endpoint.uri(), headers, dialer)),
            Protocol::Grpc => {
                let channel = TonicEndpoint::from(bare(endpoint.uri()));
                let channel = channel.origin(endpoint.uri().clone()).user_agent(USER_AGENT);
                let channel = channel.map_err(|e| TlsFault::new("traces.endpoint", chain(&e)))?;
                let channel = channel.connect_with_connector_lazy(dialer);
                Self::Grpc { client: TraceServiceClient::new(channel), headers }
            }
        }))
    }

    /// Sends `request`; returns how many of its spans the collector rejected.
    pub(super) async fn export(
        &mut self,
        request: &ExportTraceServiceRequest,
    ) -> Result<u64, Failure> {
        let response = match self {
            Self::Http(http) => http.export(request).await?,
            Self::Grpc { client, headers } => {
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

/// The headers of the settings, which were checked for that.
fn headers(settings: &TraceSettings) -> HeaderMap {
    let pairs = settings.headers.iter().flat_map(Headers::iter);
    let pairs = pairs.filter_map(|(name, value)| {
        let mut value = HeaderValue::from_str(value).ok()?;
        value.set_sensitive(true);
        Some((name.parse::<HeaderName>().ok()?, value))
    });
    pairs.collect()
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

/// OTLP over HTTP/1.1, on one connection.
#[derive(Debug)]
pub(super) struct Http {
    path: PathAndQuery,
    headers: HeaderMap,
    dialer: Dialer,
    /// The connection of the last export, if it can be used again.
    open: Option<SendRequest<Full<Bytes>>>,
}

impl Http {
    fn new(uri: &Uri, mut headers: HeaderMap, dialer: Dialer) -> Self {
        let path = uri.path_and_query().filter(|path| path.as_str() != "/").cloned();
        let host = uri.authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok());
        headers.extend(host.map(|host| (HOST, host)));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        headers.insert(http::header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        let path = path.unwrap_or_else(|| PathAndQuery::from_static(PATH));
        Self { path, headers, dialer, open: None }
    }

    async fn export(
        &mut self,
        export: &ExportTraceServiceRequest,
    ) -> Result<ExportTraceServiceResponse, Failure> {
        let later = |reason: String| Failure { reason, retry: true };
        let mut request = Request::new(Full::new(Bytes::from(export.encode_to_vec())));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from(self.path.clone());
        request.headers_mut().clone_from(&self.headers);
        // Taken: a connection whose export failed, or ended early, is not used again.
        let mut connection = match self.open.take().filter(|open| !open.is_closed()) {
            Some(open) => open,
            None => self.connect().await.map_err(later)?,
        };
        let response = connection.send_request(request).await;
        let response = response.map_err(|error| later(chain(&error)))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
        let body = body.map_err(|error| later(chain(&*error)))?.to_bytes();
        self.open = connection.ready().await.is_ok().then_some(connection);
        if !status.is_success() {
            let retry = LATER.contains(&status);
            return Err(Failure { reason: format!("HTTP status {status}"), retry });
        }
        // The spans have arrived, whatever this says.
        Ok(ExportTraceServiceResponse::decode(body).unwrap_or_default())
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, String> {
        let io = self.dialer.connect().await.map_err(|error| chain(&error))?;
        let (sender, connection) = handshake(io).await.map_err(|error| chain(&error))?;
        // Its errors are those of the export.
        tokio::spawn(async move { drop(connection.await) });
        Ok(sender)
    }
}
