//! HTTP/2 for gRPC, the server's side: bytes in, events out; answers in, bytes out.
//!
//! It has no sockets, no clocks and no tasks, so that it can be fuzzed. [`Connection`] is all that
//! its owner needs:
//! * [`connection`]: the frames, in the order in which they come. `blocks`, `flow`: those that
//!   begin a request, and those that change how much may be sent.
//! * `event`: what comes of the bytes. `memo`: blocks of headers that come again.
//! * `send`: answers, within the windows of the peer.
//! * `head`: the rules that the head of a request has to keep. `streams`: what is open.
//! * [`frame`], [`hpack`]: the encodings.
//!
//! Server push, priorities and upgrades of HTTP/1 are left out: gRPC has no use for them.
//!
//! Source: RFC 9113, RFC 7541.

mod blocks;
pub mod connection;
mod event;
mod flow;
pub mod frame;
mod head;
pub mod hpack;
mod memo;
mod send;
mod streams;

pub use self::connection::Connection;
pub use self::event::{Event, Fault, Limits};
pub use self::streams::End;

#[cfg(test)]
mod tests;
