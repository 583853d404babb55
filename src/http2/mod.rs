//! HTTP/2 for gRPC: the frames, and the compression of headers.
//!
//! Source: RFC 9113, RFC 7541.

pub mod frame;
pub mod hpack;
