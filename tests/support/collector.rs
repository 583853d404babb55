//! An OTLP collector of the test's own, over gRPC or over HTTP, that keeps the spans it gets.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response as HttpResponse};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::Span;
use parking_lot::Mutex;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

use crate::support::certs::Pair;
use crate::support::wait::until;

/// What a collector does with an export.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Manner {
    /// Takes it.
    Takes,
    /// Never answers.
    Hangs,
    /// Asks for another attempt.
    Busy,
    /// Takes it, and rejects one span.
    RejectsOne,
    /// Refuses it for good.
    Refuses,
}

/// A running collector; it ends when it is dropped.
pub struct Collector {
    pub at: SocketAddr,
    kept: Kept,
    manner: watch::Sender<Manner>,
    server: JoinHandle<()>,
}

/// A span that came.
#[derive(Clone, Debug)]
pub struct Seen {
    pub span: Span,
    /// The attributes of its service.
    pub resource: Vec<KeyValue>,
    /// The headers of its export.
    pub headers: HeaderMap,
}

#[derive(Clone)]
struct Kept {
    spans: Arc<Mutex<Vec<Seen>>>,
    manner: watch::Receiver<Manner>,
}

impl Collector {
    /// One that listens with gRPC.
    pub async fn grpc() -> Self {
        Self::grpc_at(SocketAddr::from(([127, 0, 0, 1], 0)), None).await
    }

    /// One that listens with gRPC at this address, over TLS if there is a certificate.
    pub async fn grpc_at(address: SocketAddr, tls: Option<&Pair>) -> Self {
        Self::start(address, |listener, kept| {
            let mut server = Server::builder();
            if let Some(Pair { cert, key }) = tls {
                let read = |path: &Path| std::fs::read(path).unwrap();
                let identity = Identity::from_pem(read(cert), read(key));
                server = server.tls_config(ServerTlsConfig::new().identity(identity)).unwrap();
            }
            let server = server.add_service(TraceServiceServer::new(kept));
            tokio::spawn(async move {
                server.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
            })
        })
        .await
    }

    /// One that listens with HTTP.
    pub async fn http() -> Self {
        Self::start(SocketAddr::from(([127, 0, 0, 1], 0)), |listener, kept| {
            let routes = axum::Router::new().route(
                "/v1/traces",
                post(move |headers: HeaderMap, body: Bytes| {
                    let kept = kept.clone();
                    async move { kept.over_http(headers, body).await }
                }),
            );
            tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() })
        })
        .await
    }

    async fn start(
        address: SocketAddr,
        serve: impl FnOnce(TcpListener, Kept) -> JoinHandle<()>,
    ) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let at = listener.local_addr().unwrap();
        let (manner, receiver) = watch::channel(Manner::Takes);
        let kept = Kept { spans: Arc::default(), manner: receiver };
        let server = serve(listener, kept.clone());
        Self { at, kept, manner, server }
    }

    /// From now on it does this.
    pub fn behave(&self, manner: Manner) {
        self.manner.send_replace(manner);
    }

    /// The spans that came so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.kept.spans.lock().clone()
    }

    /// Waits for a span that fits.
    pub async fn span(&self, what: &str, fits: impl Fn(&Seen) -> bool) -> Seen {
        until(what, async || self.seen().into_iter().find(|seen| fits(seen))).await
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Kept {
    async fn keep(&self, headers: HeaderMap, export: ExportTraceServiceRequest) -> Manner {
        let manner = *self.manner.borrow();
        match manner {
            Manner::Hangs => std::future::pending().await,
            Manner::Busy | Manner::Refuses => return manner,
            Manner::Takes | Manner::RejectsOne => {}
        }
        for of in export.resource_spans {
            let resource = of.resource.unwrap_or_default().attributes;
            for span in of.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                let (resource, headers) = (resource.clone(), headers.clone());
                self.spans.lock().push(Seen { span, resource, headers });
            }
        }
        manner
    }

    async fn over_http(&self, headers: HeaderMap, body: Bytes) -> HttpResponse {
        assert_eq!(headers["content-type"], "application/x-protobuf");
        let export = ExportTraceServiceRequest::decode(body).unwrap();
        match self.keep(headers, export).await {
            Manner::Busy => StatusCode::SERVICE_UNAVAILABLE.into_response(),
            Manner::Refuses => StatusCode::BAD_REQUEST.into_response(),
            manner => answer(manner).encode_to_vec().into_response(),
        }
    }
}

#[tonic::async_trait]
impl TraceService for Kept {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let headers = request.metadata().clone().into_headers();
        match self.keep(headers, request.into_inner()).await {
            Manner::Busy => Err(Status::unavailable("busy")),
            Manner::Refuses => Err(Status::invalid_argument("no, hunter2")),
            manner => Ok(Response::new(answer(manner))),
        }
    }
}

fn answer(manner: Manner) -> ExportTraceServiceResponse {
    let rejected = ExportTracePartialSuccess { rejected_spans: 1, ..Default::default() };
    let partial_success = (manner == Manner::RejectsOne).then_some(rejected);
    ExportTraceServiceResponse { partial_success }
}

impl Seen {
    /// An attribute of the span, as text.
    pub fn attribute(&self, key: &str) -> Option<String> {
        text(&self.span.attributes, key)
    }

    /// An attribute of its service, as text.
    pub fn of_service(&self, key: &str) -> Option<String> {
        text(&self.resource, key)
    }

    /// The ids of its trace, of its parent and of itself.
    pub fn ids(&self) -> [String; 3] {
        let digit = |half: u8| char::from_digit(half.into(), 16).unwrap();
        let hex =
            |id: &[u8]| id.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect();
        [hex(&self.span.trace_id), hex(&self.span.parent_span_id), hex(&self.span.span_id)]
    }
}

fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    Some(match found.value.clone()? {
        AnyValue { value: Some(Value::StringValue(text)) } => text,
        AnyValue { value: Some(Value::BoolValue(flag)) } => flag.to_string(),
        AnyValue { value: Some(Value::IntValue(number)) } => number.to_string(),
        other => format!("{other:?}"),
    })
}
