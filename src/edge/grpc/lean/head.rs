//! The head of a call, read once for all calls that have the same.

use std::time::Duration;

use http::Method;
use http::request::Parts;

use crate::edge::grpc::caller::SHOULD_RATE_LIMIT;
use crate::edge::grpc::rls::patience;
use crate::edge::grpc::unary;

/// The head of a call.
#[derive(Debug)]
pub(super) struct CallHead {
    pub(super) parts: Parts,
    /// It asks for a decision.
    pub(super) decides: bool,
    /// The time that its caller leaves for the store.
    pub(super) patience: Option<Duration>,
    /// Its message is compressed.
    pub(super) compressed: bool,
}

impl From<Parts> for CallHead {
    fn from(parts: Parts) -> Self {
        Self {
            decides: parts.uri.path() == SHOULD_RATE_LIMIT && parts.method == Method::POST,
            patience: patience(&parts.headers),
            compressed: unary::is_compressed(&parts.headers),
            parts,
        }
    }
}
