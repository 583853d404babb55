//! A message beyond the size bound is over its limit, not an error: Envoy would let the request pass on an error.
//!
//! tonic refuses such a message before it reads it, with OUT_OF_RANGE. This service around the generated one turns that,
//! and nothing else, into an OVER_LIMIT response.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::future::{MapOk, TryFutureExt as _};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full};
use prost::Message as _;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::NamedService;

use super::response::unread;
use crate::limiter::Shared;

/// OUT_OF_RANGE as it stands in the header.
const OUT_OF_RANGE: &str = "11";

/// The service inside, with an answer to oversized messages.
#[derive(Clone, Debug)]
pub struct Oversized<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S> Oversized<S> {
    /// Wraps `inner`.
    pub const fn new(inner: S, shared: Arc<Shared>) -> Self {
        Self { inner, shared }
    }
}

impl<S: NamedService> NamedService for Oversized<S> {
    const NAME: &'static str = S::NAME;
}

type Mapping = Box<dyn FnOnce(Response<Body>) -> Response<Body> + Send>;

impl<S> Service<Request<Body>> for Oversized<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = MapOk<S::Future, Mapping>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let shared = Arc::clone(&self.shared);
        self.inner.call(request).map_ok(Box::new(move |response| decided(response, &shared)))
    }
}

fn decided(response: Response<Body>, shared: &Shared) -> Response<Body> {
    if response.headers().get("grpc-status").is_none_or(|code| code != OUT_OF_RANGE) {
        return response;
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = Full::new(frame(&unread(shared.decide_unread())))
        .with_trailers(std::future::ready(Some(Ok(trailers))));
    let mut response = Response::new(Body::new(body));
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// An uncompressed gRPC message: flag, length, bytes.
fn frame(message: &super::pb::RateLimitResponse) -> Bytes {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(length + 5);
    frame.put_u8(0);
    frame.put_u32(length as u32);
    message.encode_raw(&mut frame);
    frame.freeze()
}
