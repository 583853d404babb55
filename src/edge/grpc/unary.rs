//! One unary gRPC call on the wire: a message out of a request's body, a reply as a response's body.
//!
//! It is what tonic does for any kind of call, for the one kind that every decision is: no compression, one message
//! each way. What cannot be read is answered with the status that tonic would give.
//!
//! Source: the gRPC over HTTP/2 specification: a message is a flag (1: compressed), its length in 32 bits, big-endian,
//! and its bytes; the status stands in the trailers.

use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Frame, Incoming};
use prost::Message;
use tonic::Status;
use tonic::body::Body;

/// The bytes before a message.
const PREFIX: usize = 5;

const GRPC_STATUS: &str = "grpc-status";
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const OK: HeaderValue = HeaderValue::from_static("0");

/// Why no message came out of a body.
#[derive(Debug)]
pub(super) enum Unread {
    /// It is larger than allowed, and was not read.
    TooLarge,
    /// It is no call of this kind.
    Refused(Status),
}

impl From<Status> for Unread {
    fn from(status: Status) -> Self {
        Self::Refused(status)
    }
}

/// The one message of `request`, of at most `longest` bytes, if it comes within `patient`.
pub(super) async fn message_in_time(
    request: Request<Incoming>,
    longest: usize,
    patient: Duration,
) -> Result<Bytes, Unread> {
    let mut reading = pin!(message(request, longest));
    // As a rule all of it is there, and no timer is made.
    if let Poll::Ready(read) = futures_util::poll!(reading.as_mut()) {
        return read;
    }
    tokio::time::timeout(patient, reading).await.unwrap_or_else(|_| {
        Err(Status::deadline_exceeded(format!("the message did not arrive in {patient:?}")).into())
    })
}

/// The one message of `request`, of at most `longest` bytes.
async fn message(request: Request<Incoming>, longest: usize) -> Result<Bytes, Unread> {
    refuse_compression(request.headers())?;
    let mut body = request.into_body();
    let mut read = next(&mut body).await?.unwrap_or_default();
    // As a rule the first frame is the whole.
    while announced(&read, longest)?.is_none_or(|length| read.len() < length)
        && let Some(more) = next(&mut body).await?
    {
        let mut joined = BytesMut::from(read);
        joined.extend_from_slice(&more);
        read = joined.freeze();
    }
    let length = announced(&read, longest)?.ok_or_else(missing)?;
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
            read.advance(PREFIX);
            Ok(read)
        }
    }
}

/// The next bytes of `body`; none at its end. Trailers say nothing here.
async fn next(body: &mut Incoming) -> Result<Option<Bytes>, Status> {
    match body.frame().await {
        Some(Ok(frame)) => Ok(Some(frame.into_data().unwrap_or_default())),
        Some(Err(error)) => Err(Status::cancelled(error.to_string())),
        None => Ok(None),
    }
}

/// How long the message and its prefix are, as soon as the prefix is there.
fn announced(read: &[u8], longest: usize) -> Result<Option<usize>, Unread> {
    let Some((prefix, _)) = read.split_first_chunk::<PREFIX>() else { return Ok(None) };
    let [flag, length @ ..] = *prefix;
    if flag != 0 {
        let text = "the message is compressed, and the call does not say how";
        return Err(Status::internal(text).into());
    }
    match u32::from_be_bytes(length) as usize {
        length if length > longest => Err(Unread::TooLarge),
        length => Ok(Some(PREFIX + length)),
    }
}

fn missing() -> Status {
    Status::internal("the message is missing")
}

fn refuse_compression(headers: &HeaderMap) -> Result<(), Status> {
    match headers.get("grpc-encoding") {
        Some(encoding) if encoding != "identity" => {
            let text = "messages cannot be compressed; send grpc-encoding: identity";
            let mut status = Status::unimplemented(text);
            status.metadata_mut().insert(
                "grpc-accept-encoding",
                tonic::metadata::MetadataValue::from_static("identity"),
            );
            Err(status)
        }
        _ => Ok(()),
    }
}

/// The response that carries `message`.
pub(super) fn response(message: &impl Message) -> Response<Reply> {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(PREFIX + length);
    frame.put_u8(0);
    frame.put_u32(length as u32);
    message.encode_raw(&mut frame);
    let mut response = Response::new(Reply::Message(frame.freeze()));
    response.headers_mut().insert(http::header::CONTENT_TYPE, GRPC);
    response
}

/// The response that carries nothing but `status`.
pub(super) fn refusal(status: Status) -> Response<Reply> {
    status.into_http::<Body>().map(Reply::Other)
}

/// The body of a response.
#[derive(Debug)]
pub(super) enum Reply {
    /// A message that is still to be sent, with its prefix.
    Message(Bytes),
    /// The trailers of a call that went well are still to be sent.
    Trailers,
    /// Nothing is left to be sent.
    Sent,
    /// What another service answers.
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
        let frame = match reply {
            Self::Message(message) => Frame::data(std::mem::take(message)),
            Self::Trailers => {
                let mut trailers = HeaderMap::with_capacity(1);
                trailers.insert(GRPC_STATUS, OK);
                Frame::trailers(trailers)
            }
            Self::Sent => return Poll::Ready(None),
            Self::Other(body) => return Pin::new(body).poll_frame(cx),
        };
        *reply = if frame.is_data() { Self::Trailers } else { Self::Sent };
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Message(_) | Self::Trailers => false,
            Self::Sent => true,
            Self::Other(body) => body.is_end_stream(),
        }
    }
}
