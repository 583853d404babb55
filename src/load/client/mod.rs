//! The client of the load generator: gRPC calls of one method over HTTP/2, many at a time.
//!
//! It costs less than any server that it measures: a call is a header block that was encoded once
//! and a message of the plan, many calls are written together, and answers are read in place.
//!
//! * `session`: one connection as a state machine, bytes in and bytes out.
//! * `calls`: the calls in flight of a session.
//! * `requests`: the header blocks of requests; `heads`: those of answers.
//! * `line`: a session and its socket.
//! * `target`: the service, and how a socket to it is opened.

mod calls;
mod heads;
mod line;
mod requests;
mod session;
mod target;

pub(super) use self::line::Line;
pub(super) use self::session::End;
pub(super) use self::target::{BadTarget, Target};

/// The reason why a connection ended, or a call on it failed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum Fault {
    /// The peer broke HTTP/2.
    #[error("the service broke HTTP/2: {0}")]
    Protocol(&'static str),
    /// The peer closed the connection with a code of HTTP/2.
    #[error("the service closed the connection with HTTP/2 error {0}")]
    GoAway(u32),
    /// The peer reset the call with a code of HTTP/2.
    #[error("the service reset the call with HTTP/2 error {0}")]
    Reset(u32),
    /// The answer is not one of gRPC.
    #[error("the service answered with HTTP status {0}")]
    Http(u16),
    /// The status of gRPC is not OK.
    #[error("the service answered with gRPC status {0}")]
    Grpc(u32),
    /// The answer has no message or no status.
    #[error("the answer is not a gRPC message: {0}")]
    Answer(&'static str),
    /// The socket failed, or the peer closed it.
    #[error("{0}")]
    Socket(String),
}
