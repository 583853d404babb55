//! The framing of a gRPC call: prefix and message, in chunks of any length.
//!
//! Input: a byte that chooses the cuts, a byte that chooses the bound, and the body.

use std::convert::Infallible;
use std::iter;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::stream;
use http_body_util::StreamBody;
use hyper::body::Frame;
use tollgate::edge::grpc::unary::{InvalidMessage, message};
use tonic::Code;

use super::chunks;

const PREFIX_BYTES: usize = 5;

/// The outcome of reading a body.
#[derive(Debug, Eq, PartialEq)]
enum Read {
    Message(Bytes),
    TooLarge,
    Refused(Code),
}

/// The same outcome however the body is cut: that of a reader which has all of it.
pub fn run(data: &[u8]) {
    let [seed, bound, body @ ..] = data else { return };
    let max_bytes = usize::from(*bound) * 4;
    let expected = expected(body, max_bytes);
    for chunks in chunks::ways(body, *seed) {
        assert_eq!(read(chunks, max_bytes), expected, "{}", body.escape_ascii());
    }
    for cut in 0..body.len().min(2 * PREFIX_BYTES) {
        let (first, rest) = body.split_at(cut);
        let chunks = [first, rest].map(Bytes::copy_from_slice);
        assert_eq!(read(chunks, max_bytes), expected, "cut at {cut}: {}", body.escape_ascii());
    }
}

fn read(chunks: impl IntoIterator<Item = Bytes>, max_bytes: usize) -> Read {
    // Empty frames before and after, as trailers become.
    let chunks = iter::once(Bytes::new()).chain(chunks).chain([Bytes::new()]);
    let body = StreamBody::new(stream::iter(chunks.map(Frame::data).map(Ok::<_, Infallible>)));
    match message(body, max_bytes).now_or_never().expect("all frames are there") {
        Ok(message) => Read::Message(message),
        Err(InvalidMessage::TooLarge) => Read::TooLarge,
        Err(InvalidMessage::Refused(status)) => Read::Refused(status.code()),
    }
}

/// The gRPC over HTTP/2 specification, for a call with one message that is not compressed.
fn expected(body: &[u8], max_bytes: usize) -> Read {
    let Some(([flag, length @ ..], message)) = body.split_first_chunk::<PREFIX_BYTES>() else {
        return Read::Refused(Code::Internal);
    };
    let length = u32::from_be_bytes(*length) as usize;
    match flag {
        0 if length > max_bytes => Read::TooLarge,
        0 if message.len() == length => Read::Message(Bytes::copy_from_slice(message)),
        _ => Read::Refused(Code::Internal),
    }
}
