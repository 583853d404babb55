//! The message of a call, from the bytes of its body as they come.

use bytes::Bytes;
use tokio::time::Instant;
use tonic::Status;

use crate::edge::grpc::head::Head;
use crate::edge::grpc::unary::{self, InvalidMessage, PREFIX_BYTES};
use crate::edge::listener::memory::{Held, Memory};

/// A message of which a part has arrived.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) head: Head,
    /// The time at which its call began.
    pub(super) since: Instant,
    bytes: Vec<u8>,
    held: Option<Held>,
}

/// A whole message without its prefix, and the memory that it takes if it came in parts.
pub(super) type Whole = (Bytes, Option<Held>);

impl Message {
    pub(super) const fn new(head: Head, since: Instant) -> Self {
        Self { head, since, bytes: Vec::new(), held: None }
    }

    /// Adds bytes; `Some`: the message is whole.
    ///
    /// # Errors
    /// Fails if the message has more than `max_bytes`, `memory` has no room for it, or it is none.
    pub(super) fn add(
        &mut self,
        bytes: &[u8],
        end: bool,
        (max_bytes, memory): (usize, &Memory),
    ) -> Result<Option<Whole>, InvalidMessage> {
        self.bytes.extend_from_slice(bytes);
        let length = unary::framed_length(&self.bytes, max_bytes)?;
        if let (Some(length), None, false) = (length, &self.held, end) {
            self.held = Some(memory.hold(length).map_err(unary::exhausted)?);
            self.bytes.reserve(length.saturating_sub(self.bytes.len()));
        }
        if !end && length.is_none_or(|length| self.bytes.len() <= length) {
            return Ok(None);
        }
        let message = Bytes::from(std::mem::take(&mut self.bytes));
        let message = message.slice(check(&message, length)?..);
        Ok(Some((message, self.held.take())))
    }
}

/// The message of a whole `body`.
///
/// # Errors
/// Fails if the message has more than `max_bytes`, or it is none.
pub(super) fn whole(body: &[u8], max_bytes: usize) -> Result<Bytes, InvalidMessage> {
    let start = check(body, unary::framed_length(body, max_bytes)?)?;
    Ok(Bytes::copy_from_slice(body.get(start..).unwrap_or_default()))
}

/// The beginning of the message in a body that has ended, or has more than the message.
fn check(body: &[u8], length: Option<usize>) -> Result<usize, Status> {
    let length = length.ok_or_else(unary::missing)?;
    match body.len() {
        there if there < length => Err(Status::internal("the message ends too early")),
        there if there > length => Err(Status::internal("more than one message in a unary call")),
        _ => Ok(PREFIX_BYTES),
    }
}
