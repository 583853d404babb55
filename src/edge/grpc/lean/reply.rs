//! The answers of other services, and statuses, as HTTP/2.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;
use http::response::Parts;
use hyper::body::Body as _;
use tonic::Status;
use tonic::body::Body;

use super::head::CallHead;
use crate::http2::{Connection, End, hpack};

/// Sends a status and no message.
pub(super) fn send_status(http2: &mut Connection<CallHead>, stream: u32, status: Status) {
    let (head, ()) = status.into_http::<()>().into_parts();
    http2.send_head(stream, &block(&head), true);
}

/// Sends the head of an answer; `is_whole`: it is all. A client takes the status in it only then.
pub(super) fn send_head(
    http2: &mut Connection<CallHead>,
    stream: u32,
    head: &Parts,
    is_whole: bool,
) {
    http2.send_head(stream, &block(head), is_whole);
}

/// Sends of `body` what it has and the peer takes; true: that was all.
pub(super) fn send_body(
    http2: &mut Connection<CallHead>,
    stream: u32,
    body: &mut Body,
    waker: &Waker,
) -> bool {
    let mut cx = Context::from_waker(waker);
    while http2.takes_data(stream) {
        let (bytes, end) = match Pin::new(&mut *body).poll_frame(&mut cx) {
            Poll::Pending => return false,
            Poll::Ready(None) => (Bytes::new(), Some(End::Bare)),
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(bytes) => (bytes, None),
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    (Bytes::new(), Some(End::Trailers(fields(&trailers))))
                }
            },
            Poll::Ready(Some(Err(status))) => {
                let mut trailers = HeaderMap::new();
                // Only headers that are no text are refused, which a status has not.
                let _ = status.add_header(&mut trailers);
                (Bytes::new(), Some(End::Trailers(fields(&trailers))))
            }
        };
        let ends = end.is_some();
        http2.send_data(stream, bytes, end);
        if ends {
            return true;
        }
    }
    false
}

fn block(head: &Parts) -> Vec<u8> {
    let mut block = Vec::new();
    hpack::write_status(&mut block, head.status.as_u16());
    block.extend(fields(&head.headers));
    block
}

fn fields(headers: &HeaderMap) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in headers {
        hpack::write_field(&mut block, name.as_str().as_bytes(), value.as_bytes());
    }
    block
}
