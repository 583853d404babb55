//! The gRPC edge: Envoy's protocol in, Envoy's protocol out. Protobuf ends here.
//!
//! * `caller`: one connection, and what its calls ask for.
//! * [`callers`]: who may ask about a domain, by the names of their certificates.
//! * [`convert`]: a request of the protocol as a [`crate::limiter::request::Request`].
//! * `decode`: the same straight from the bytes of a message.
//! * `encode`: a decision straight to the bytes of its answer.
//! * [`head`]: the headers of a call that count.
//! * `holds`: holds for callers without a proxy.
//! * `lean`: the server of HTTP/2 that is made for decisions.
//! * [`response`]: the parts of an answer that settings add, and the answer for `/json`.
//! * [`rls`]: the service, for gRPC and for `/json`.
//! * `structs`: dynamic metadata, written straight to bytes.
//! * `wire`: fields of messages, read from and written to bytes.
//! * [`unary`]: one call on the wire, message in and reply out.
//! * [`settings`]: the sections `grpc` and `response` of the settings.
//! * [`server`]: which services the gRPC listeners have.

mod caller;
pub mod callers;
pub mod convert;
mod decode;
mod encode;
pub mod head;
pub mod headers;
mod holds;
mod lean;
pub mod metadata;
pub mod response;
pub mod rls;
pub mod server;
pub mod settings;
mod structs;
pub mod unary;
mod wire;
