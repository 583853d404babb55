//! The gRPC edge: Envoy's protocol in, Envoy's protocol out. Protobuf ends here.
//!
//! * [`callers`]: who may ask about a domain, by the names of their certificates.
//! * [`convert`]: a request of the protocol as a [`crate::limiter::request::Request`].
//! * `holds`: holds for callers without a proxy.
//! * `lean`: the server of HTTP/2 that is made for decisions.
//! * [`response`]: a decision as a response of the protocol.
//! * [`rls`]: the service, for gRPC and for `/json`.
//! * `structs`: dynamic metadata, written straight to bytes.
//! * [`unary`]: one call on the wire, message in and reply out.
//! * [`settings`]: the sections `grpc` and `response` of the settings.
//! * [`server`]: which services the gRPC listeners have.

pub mod callers;
pub mod convert;
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
