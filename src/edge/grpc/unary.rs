//! Unary gRPC calls on the wire: decodes the message of a request body, encodes the reply as a
//! response body.
//!
//! A subset of tonic's implementation: no compression, one message in each direction. Invalid
//! requests get the same status as from tonic.
//!
//! Source: the gRPC over HTTP/2 specification. A message is a flag (1: compressed), its length as a
//! 32-bit big-endian integer, and its bytes. The status is in the trailers.

use std::fmt::Display;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::BodyExt as _;
use hyper::body::{Frame, Incoming};
use prost::Message;
use tonic::Status;
use tonic::body::Body;

use crate::edge::listener::memory::{Held, Memory, NoRoom};
use crate::limiter::holds::Issued;

/// Length of the message prefix in bytes.
const PREFIX_BYTES: usize = 5;

const GRPC_STATUS: &str = "grpc-status";
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const OK: HeaderValue = HeaderValue::from_static("0");

/// The reason why a request has no valid message.
#[derive(Debug)]
pub enum InvalidMessage {
    /// The message is larger than the bound and was not read.
    TooLarge,
    /// The request is not a valid unary call.
    Refused(Status),
}

/// The message of a call.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) message: Bytes,
    /// Its memory, if it came in parts.
    pub(super) held: Option<Held>,
}

impl From<Status> for InvalidMessage {
    fn from(status: Status) -> Self {
        Self::Refused(status)
    }
}

/// Reads the message of `body`, of at most `max_bytes`, within `timeout`. A message in parts takes
/// from `memory`.
pub(super) async fn message_in_time(
    body: Incoming,
    max_bytes: usize,
    timeout: Duration,
    memory: &Memory,
) -> Result<Arrived, InvalidMessage> {
    let mut reading = pin!(read(body, max_bytes, Some(memory)));
    // Usually the whole message has arrived, so no timer is needed.
    if let Poll::Ready(read) = futures_util::poll!(reading.as_mut()) {
        return read;
    }
    tokio::time::timeout(timeout, reading).await.unwrap_or_else(|_| {
        Err(Status::deadline_exceeded(format!("the message did not arrive in {timeout:?}")).into())
    })
}

/// Reads the message of `body`, of at most `max_bytes`.
///
/// It counts no memory: the listener reads with an account, `message_in_time`.
pub async fn message<B>(body: B, max_bytes: usize) -> Result<Bytes, InvalidMessage>
where
    B: hyper::body::Body<Data = Bytes, Error: Display> + Unpin,
{
    read(body, max_bytes, None).await.map(|arrived| arrived.message)
}

/// Reads the message of `body`, of at most `max_bytes`, which takes from `memory`.
async fn read<B>(
    mut body: B,
    max_bytes: usize,
    memory: Option<&Memory>,
) -> Result<Arrived, InvalidMessage>
where
    B: hyper::body::Body<Data = Bytes, Error: Display> + Unpin,
{
    let (mut read, mut held) = (next(&mut body).await?.unwrap_or_default(), None);
    // Usually the first frame holds the whole message.
    if framed_length(&read, max_bytes)?.is_none_or(|length| read.len() < length) {
        (read, held) = joined(read, &mut body, max_bytes, memory).await?;
    }
    let length = framed_length(&read, max_bytes)?.ok_or_else(missing)?;
    while !body.is_end_stream()
        && let Some(more) = next(&mut body).await?
    {
        if !more.is_empty() {
            return Err(Status::internal("more than one message in a unary call").into());
        }
    }
    match read.len() {
        there if there < length => Err(Status::internal("the message ends too early").into()),
        there if there > length => {
            Err(Status::internal("more than one message in a unary call").into())
        }
        _ => {
            read.advance(PREFIX_BYTES);
            Ok(Arrived { message: read, held })
        }
    }
}

/// Joins `first` with the frames after it, up to the length that the message has by its prefix.
/// All of that length is held from the beginning. Frames are copied, because each is a part of a
/// buffer of the connection, and a few bytes would keep all of it.
async fn joined<B>(
    first: Bytes,
    body: &mut B,
    max_bytes: usize,
    memory: Option<&Memory>,
) -> Result<(Bytes, Option<Held>), InvalidMessage>
where
    B: hyper::body::Body<Data = Bytes, Error: Display> + Unpin,
{
    let (mut joined, mut held) = (BytesMut::from(&*first), None);
    drop(first);
    loop {
        let length = framed_length(&joined, max_bytes)?;
        if length.is_some_and(|length| joined.len() >= length) {
            break;
        }
        if let (Some(length), None) = (length, &held)
            && memory.is_some()
        {
            held = memory.map(|memory| memory.hold(length)).transpose().map_err(exhausted)?;
            joined.reserve(length.saturating_sub(joined.len()));
        }
        let Some(more) = next(body).await? else { break };
        joined.extend_from_slice(&more);
    }
    Ok((joined.freeze(), held))
}

/// The refusal of a call that finds no memory left.
pub(super) fn exhausted(error: NoRoom) -> Status {
    Status::resource_exhausted(error.to_string())
}

/// Reads the next bytes of `body`; `None` at its end. Ignores trailers.
async fn next<B>(body: &mut B) -> Result<Option<Bytes>, Status>
where
    B: hyper::body::Body<Data = Bytes, Error: Display> + Unpin,
{
    match body.frame().await {
        Some(Ok(frame)) => Ok(Some(frame.into_data().unwrap_or_default())),
        Some(Err(error)) => Err(Status::cancelled(error.to_string())),
        None => Ok(None),
    }
}

/// The length of the prefix and the message, or `None` until the prefix is complete.
fn framed_length(read: &[u8], max_bytes: usize) -> Result<Option<usize>, InvalidMessage> {
    let Some((prefix, _)) = read.split_first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
    let [flag, length @ ..] = *prefix;
    if flag != 0 {
        let text = "the message is compressed, and the call does not say how";
        return Err(Status::internal(text).into());
    }
    match u32::from_be_bytes(length) as usize {
        length if length > max_bytes => Err(InvalidMessage::TooLarge),
        length => Ok(Some(PREFIX_BYTES + length)),
    }
}

fn missing() -> Status {
    Status::internal("the message is missing")
}

/// Returns true if a call with `headers` sends compressed messages.
pub(super) fn is_compressed(headers: &HeaderMap) -> bool {
    headers.get("grpc-encoding").is_some_and(|encoding| encoding != "identity")
}

/// The refusal of a compressed message.
pub(super) fn compressed() -> Status {
    let text = "messages cannot be compressed; send grpc-encoding: identity";
    let mut status = Status::unimplemented(text);
    let identity = tonic::metadata::MetadataValue::from_static("identity");
    status.metadata_mut().insert("grpc-accept-encoding", identity);
    status
}

/// An encoded answer.
#[derive(Debug)]
pub(super) struct Framed {
    /// The message with its prefix.
    pub(super) frame: Bytes,
    /// The hold that it tells of, which is [heard](Issued::heard) once the answer has left. Dropped
    /// before, as when the caller has cancelled the call, it stays unheard.
    pub(super) hold: Option<Arc<Issued>>,
}

/// The bytes of `message` with its prefix.
pub(super) fn frame(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(PREFIX_BYTES + length);
    frame.put_u8(0);
    frame.put_u32(length as u32);
    message.encode_raw(&mut frame);
    frame.freeze()
}

/// Makes the response with an answer.
pub(super) fn response(answer: Framed) -> Response<Reply> {
    let mut response = Response::new(Reply::Message(answer));
    response.headers_mut().insert(http::header::CONTENT_TYPE, GRPC);
    response
}

/// Makes the response with only a `status`.
pub(super) fn refusal(status: Status) -> Response<Reply> {
    status.into_http::<Body>().map(Reply::Other)
}

/// The body of a response.
#[derive(Debug)]
pub(super) enum Reply {
    /// A message to be sent.
    Message(Framed),
    /// The trailers of a successful call, to be sent. After them the hold is known to the caller.
    Trailers(Option<Arc<Issued>>),
    /// The end of the body.
    Sent,
    /// The body of another service's response.
    Other(Body),
}

impl hyper::body::Body for Reply {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let reply = self.get_mut();
        let (frame, next) = match reply {
            Self::Message(Framed { frame, hold }) => {
                (Frame::data(std::mem::take(frame)), Self::Trailers(hold.take()))
            }
            Self::Trailers(hold) => {
                if let Some(hold) = hold {
                    hold.heard();
                }
                let mut trailers = HeaderMap::with_capacity(1);
                trailers.insert(GRPC_STATUS, OK);
                (Frame::trailers(trailers), Self::Sent)
            }
            Self::Sent => return Poll::Ready(None),
            Self::Other(body) => return Pin::new(body).poll_frame(cx),
        };
        *reply = next;
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Message(_) | Self::Trailers(_) => false,
            Self::Sent => true,
            Self::Other(body) => body.is_end_stream(),
        }
    }
}
