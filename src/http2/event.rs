//! The events that the bytes of a peer make, and the bounds on them.

use std::sync::Arc;

use super::frame::ErrorCode;

/// The bounds of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Open streams.
    pub streams: u32,
    /// Bytes of the headers of a request, as RFC 9113, section 6.5.2, counts them.
    pub header_bytes: u32,
    /// Bytes of a request that are read by nobody yet.
    pub stream_window: u32,
    /// The same of all requests.
    pub connection_window: u32,
    /// Streams that a peer opens and resets in one turn (CVE-2023-44487, "rapid reset").
    pub resets_in_a_turn: usize,
    /// Streams that this side resets for faults of the peer (CVE-2025-8671, "made you reset").
    pub faults: usize,
}

/// The end of a connection for a fault of the peer. GOAWAY with the code is in the output.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{reason}")]
pub struct Fault {
    /// The code, as GOAWAY has it.
    pub code: ErrorCode,
    /// The deed of the peer.
    pub reason: &'static str,
}

impl Fault {
    pub(super) const fn new(code: ErrorCode, reason: &'static str) -> Self {
        Self { code, reason }
    }

    pub(super) const fn protocol(reason: &'static str) -> Self {
        Self::new(ErrorCode::PROTOCOL_ERROR, reason)
    }
}

/// Something that a peer has sent.
#[derive(Debug)]
pub enum Event<'a, T> {
    /// A request has begun.
    Request {
        /// Its stream.
        stream: u32,
        /// Its head.
        head: Arc<T>,
        /// All of its body, if that is known.
        body: Option<&'a [u8]>,
    },
    /// More of the body of a request. The windows are updated once it is
    /// [read](super::Connection::release).
    Data {
        /// Its stream.
        stream: u32,
        /// The bytes.
        bytes: &'a [u8],
        /// It is all.
        end: bool,
    },
    /// A stream is closed: the peer has given up, perhaps before it saw the answer, or has broken a
    /// rule. Nothing can be sent on it.
    Reset {
        /// The stream.
        stream: u32,
    },
}

/// The fault of a frame with more padding than payload.
pub(super) const TOO_MUCH_PADDING: Fault = Fault::protocol("more padding than there is room for");
