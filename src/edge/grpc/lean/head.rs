//! The head of a call, read once for all calls that have the same.

use http::Method;
use http::request::Parts;

use crate::edge::grpc::caller::SHOULD_RATE_LIMIT;
use crate::edge::grpc::head::Terms;

/// The head of a call.
#[derive(Debug)]
pub(super) struct CallHead {
    pub(super) parts: Parts,
    /// It asks for a decision.
    pub(super) decides: bool,
    pub(super) terms: Terms,
}

impl From<Parts> for CallHead {
    fn from(parts: Parts) -> Self {
        let decides = parts.uri.path() == SHOULD_RATE_LIMIT && parts.method == Method::POST;
        let terms = Terms::of(&parts.headers);
        Self { parts, decides, terms }
    }
}
