//! Streams of gRPC: each is held while it is open, and settled once, whoever ends it.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue};
use http_body_util::{BodyStream, StreamBody};
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{Sender, channel};
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::configuration;
use super::edge::{COST, ESTIMATE, Edge};
use crate::support::tollgate::Tollgate;

/// Lets Envoy speak HTTP/2 with the upstream at this address.
pub fn lead_to(envoy: &mut Value, upstream: SocketAddr) {
    configuration::speak(envoy, &json!({ "http2_protocol_options": {} }));
    configuration::cluster(envoy, "backends")["load_assignment"]["endpoints"] =
        configuration::endpoints(upstream);
}

/// The value of `x-ends` with which the upstream does not end a call by itself.
pub const NEVER: &str = "never";

/// An upstream that sends back all that it gets. When the client has said all, it ends with the
/// gRPC status that the header `x-ends` names, unless that is `NEVER`. It says at the beginning and
/// at the end that it cost seven.
pub async fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let server = http2::Builder::new(TokioExecutor::new());
            let answers = service_fn(async |request| Ok::<_, Infallible>(answer(request)));
            tokio::spawn(server.serve_connection(TokioIo::new(stream), answers));
        }
    });
    at
}

fn answer(
    request: http::Request<Incoming>,
) -> http::Response<impl Body<Data = Bytes, Error = Infallible>> {
    let cost = HeaderValue::from(COST);
    let status = request.headers().get("x-ends").cloned();
    let ends = status.as_ref().is_none_or(|status| status != NEVER);
    let mut trailers = HeaderMap::from_iter([(http::HeaderName::from_static("x-tokens"), cost)]);
    trailers.insert("grpc-status", status.unwrap_or(HeaderValue::from_static("0")));
    let end = stream::iter([Ok(Frame::trailers(trailers))]);
    let end = if ends { end.left_stream() } else { stream::pending().right_stream() };
    let said = BodyStream::new(request.into_body());
    let data = said.filter_map(async |frame| frame.ok().filter(Frame::is_data).map(Ok));
    let body = StreamBody::new(data.chain(end));
    let answer = http::Response::builder().header("content-type", "application/grpc");
    answer.header("x-tokens", COST).body(body).unwrap()
}

/// A call whose stream is open in both directions; dropped, it is cancelled.
pub struct Call {
    says: Sender<()>,
    hears: Streaming<()>,
}

impl Call {
    /// Opens a stream with these headers.
    pub async fn open(edge: &Edge, headers: &[(&'static str, &str)]) -> Result<Self, Status> {
        let (says, said) = channel(4);
        let mut request = Request::new(ReceiverStream::new(said));
        for (name, value) in headers {
            request.metadata_mut().insert(*name, value.parse().unwrap());
        }
        let mut client = Grpc::new(Tollgate::channel(edge.envoy.edge).await);
        client.ready().await.unwrap();
        let path = PathAndQuery::from_static("/api/Chat/Talk");
        let answer = client.streaming(request, path, ProstCodec::<(), ()>::default()).await?;
        Ok(Self { says, hears: answer.into_inner() })
    }

    /// Says something and waits until it comes back.
    pub async fn talk(&mut self) {
        self.says.send(()).await.unwrap();
        assert_eq!(self.hears.message().await.unwrap(), Some(()));
    }

    /// Says no more; the status with which the upstream ends.
    pub async fn end(self) -> Code {
        let Self { says, mut hears } = self;
        drop(says);
        loop {
            match hears.message().await {
                Ok(Some(())) => {}
                Ok(None) => return Code::Ok,
                Err(status) => return status.code(),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stream_is_settled_once_whoever_ends_it() {
    let upstream = upstream().await;
    let Some(edge) = Edge::start_with(|envoy| lead_to(envoy, upstream)).await else { return };
    for ends in [Some(Code::Ok), Some(Code::Internal), None] {
        let (user, before) = (edge.new_user(), edge.calls().await);
        let settled = edge.holds("settled");
        let code = (ends.unwrap_or(Code::Ok) as i32).to_string();
        let mut call = Call::open(&edge, &[("x-user", &user), ("x-ends", &code)]).await.unwrap();
        for _ in 0..3 {
            call.talk().await;
            assert_eq!(edge.taken("edge", &user).await, (1, ESTIMATE), "{ends:?}: it is open");
        }
        assert_eq!(edge.calls().await - before, 1, "{ends:?}: nothing is said before its end");
        match ends {
            Some(code) => assert_eq!(call.end().await, code),
            None => drop(call),
        }
        edge.until_settled(&format!("{ends:?}"), &user, COST).await;
        assert_eq!(edge.calls().await - before, 2, "{ends:?}: one call at the end");
        // The slot and the tokens.
        edge.until_holds("settled", settled + 2).await;
    }
    edge.assert_all_is_settled().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stream_that_is_denied_holds_nothing() {
    let upstream = upstream().await;
    let Some(edge) = Edge::start_with(|envoy| lead_to(envoy, upstream)).await else { return };
    let user = edge.new_user();
    let mut holding = Call::open(&edge, &[("x-turn", &user)]).await.unwrap();
    holding.talk().await;
    let (before, reserved) = (edge.calls().await, edge.holds("reserved"));
    let denied = Call::open(&edge, &[("x-turn", &user), ("x-user", &user)]).await;
    assert_eq!(denied.err().map(|status| status.code()), Some(Code::Unavailable));
    assert_eq!(edge.taken("edge", &user).await, (0, 0));
    assert_eq!(edge.holds("reserved"), reserved);
    assert_eq!(edge.calls().await - before, 1, "nothing is said at the end");
    assert_eq!(holding.end().await, Code::Ok);
    edge.assert_all_is_settled().await;
}
