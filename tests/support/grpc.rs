//! gRPC for tests: short ways to ask, and calls written by hand for what a well-behaved client would not send.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use prost_types::value::Kind;
use serde_json::{Value, json};
use tollgate::edge::pb;
use tollgate::edge::pb::rate_limit_response::Code;
use tollgate::edge::pb::rate_limit_service_client::RateLimitServiceClient;
use tonic::transport::Channel;

/// The method of the protocol.
pub const SHOULD_RATE_LIMIT: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";

pub type Client = RateLimitServiceClient<Channel>;

pub async fn ask(client: &mut Client, request: pb::RateLimitRequest) -> pb::RateLimitResponse {
    client.should_rate_limit(request).await.expect("a decision").into_inner()
}

/// The codes of so many equal requests.
pub async fn codes(client: &mut Client, request: &pb::RateLimitRequest, times: usize) -> Vec<Code> {
    let mut codes = Vec::new();
    for _ in 0..times {
        codes.push(ask(client, request.clone()).await.overall_code());
    }
    codes
}

/// The request, with these hits for each descriptor.
pub fn with_hits(mut request: pb::RateLimitRequest, hits: u64) -> pb::RateLimitRequest {
    request.descriptors.iter_mut().for_each(|d| d.hits_addend = Some(hits));
    request
}

/// The request, giving so many hits back for each descriptor.
pub fn refund(request: pb::RateLimitRequest, hits: u64) -> pb::RateLimitRequest {
    let mut request = with_hits(request, hits);
    request.descriptors.iter_mut().for_each(|d| d.is_negative_hits = true);
    request
}

/// The dynamic metadata as JSON.
pub fn metadata(response: &pb::RateLimitResponse) -> Value {
    match response.dynamic_metadata.clone() {
        none if none.is_empty() => Value::Null,
        bytes => of_struct(&prost_types::Struct::decode(bytes).expect("a Struct")),
    }
}

fn of_struct(fields: &prost_types::Struct) -> Value {
    fields.fields.iter().map(|(key, value)| (key.clone(), of_value(value))).collect()
}

fn of_value(value: &prost_types::Value) -> Value {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::NumberValue(number)) => json!(number),
        Some(Kind::StringValue(text)) => json!(text),
        Some(Kind::BoolValue(flag)) => json!(flag),
        Some(Kind::StructValue(fields)) => of_struct(fields),
        Some(Kind::ListValue(list)) => list.values.iter().map(of_value).collect(),
    }
}

/// Whether any limit was decided without the store.
pub fn is_degraded(response: &pb::RateLimitResponse) -> bool {
    metadata(response).to_string().contains("\"degraded\":true")
}

/// A call written by hand.
#[derive(Debug)]
pub struct Raw {
    /// The headers, and the trailers after them.
    pub headers: HeaderMap,
    /// The body as it came.
    pub body: Bytes,
}

impl Raw {
    /// The gRPC status.
    pub fn status(&self) -> Option<&str> {
        self.headers.get("grpc-status").and_then(|code| code.to_str().ok())
    }

    /// The message in the body.
    pub fn response(&self) -> pb::RateLimitResponse {
        assert_eq!(self.status(), Some("0"), "{:?}", self.headers);
        pb::RateLimitResponse::decode(&self.body[5..]).expect("a response")
    }
}

/// Posts `body` to `path` over a connection of its own.
pub async fn raw_call(
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    body: Bytes,
) -> Raw {
    raw_call_in_pieces(address, path, headers, vec![body]).await
}

/// Posts a body of these pieces, each in a frame of its own.
pub async fn raw_call_in_pieces(
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    pieces: Vec<Bytes>,
) -> Raw {
    let stream = tokio::net::TcpStream::connect(address).await.expect("a connection");
    // Else the body would wait for an acknowledgement of the headers.
    stream.set_nodelay(true).unwrap();
    let io = TokioIo::new(stream);
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), io).await.expect("HTTP/2");
    let driver = tokio::spawn(connection);
    let mut request = Request::post(format!("http://{address}{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let pieces = pieces.into_iter().map(|piece| Ok::<_, Infallible>(Frame::data(piece)));
    let request = request.body(StreamBody::new(tokio_stream::iter(pieces))).unwrap();
    let response = sender.send_request(request).await.expect("an answer");
    let (parts, body) = response.into_parts();
    let body = body.collect().await.expect("a body");
    let mut headers = parts.headers;
    headers.extend(body.trailers().cloned().unwrap_or_default());
    driver.abort();
    Raw { headers, body: body.to_bytes() }
}

/// A message as gRPC frames it.
pub fn frame(compressed: bool, message: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(compressed.into());
    frame.put_u32(u32::try_from(message.len()).unwrap());
    frame.extend_from_slice(message);
    frame.freeze()
}
