//! A decision as a response of the protocol.

use http::HeaderName;
use prost::Message as _;

use super::settings::ResponseSettings;
use super::unary::PREFIX_BYTES;
use crate::domain::{Unit, Verdict};
use crate::edge::pb;
use crate::edge::pb::rate_limit_response::Code;
use crate::edge::pb::rate_limit_response::rate_limit::Unit as PbUnit;
use crate::limiter::key::SensitiveHasher;
use crate::limiter::report::Report;
use crate::limiter::request::Request;
use crate::limiter::status::Decision;

/// The parts of a response beside the statuses.
#[derive(Clone, Debug)]
pub struct Responder {
    /// The additions to the decision.
    pub settings: ResponseSettings,
    /// Hides sensitive values in metadata.
    pub hasher: SensitiveHasher,
    /// The request header with the wait of a request that waits; none: it is in the metadata alone.
    pub delay_header: Option<HeaderName>,
}

impl Responder {
    /// The response to `request`, read from the frame that gRPC sends.
    pub fn respond(&self, request: &Request, decision: &Decision) -> pb::RateLimitResponse {
        let frame = self.frame(request, decision);
        let message = frame.get(PREFIX_BYTES..).unwrap_or_default();
        pb::RateLimitResponse::decode(message).unwrap_or_else(|error| {
            tracing::error!(%error, "an answer was encoded that is no answer: please report it");
            unread(decision.verdict)
        })
    }
}

/// The response to a message that is too large to be read: no statuses, as its descriptors are not
/// known.
pub(super) fn unread(verdict: Verdict) -> pb::RateLimitResponse {
    pb::RateLimitResponse {
        overall_code: code(verdict == Verdict::Deny).into(),
        ..pb::RateLimitResponse::default()
    }
}

pub(super) const fn code(over_limit: bool) -> Code {
    if over_limit { Code::OverLimit } else { Code::Ok }
}

/// The unit of a limit, and how many of them where it is not one.
pub(super) fn unit(limit: &Report) -> (PbUnit, Option<u32>) {
    if limit.concurrent {
        return (PbUnit::Unknown, None);
    }
    let many = (limit.unit_multiplier != 1).then_some(limit.unit_multiplier);
    (pb_unit(limit.unit), many)
}

const fn pb_unit(unit: Unit) -> PbUnit {
    match unit {
        Unit::Second => PbUnit::Second,
        Unit::Minute => PbUnit::Minute,
        Unit::Hour => PbUnit::Hour,
        Unit::Day => PbUnit::Day,
        Unit::Week => PbUnit::Week,
        Unit::Month => PbUnit::Month,
        Unit::Year => PbUnit::Year,
    }
}
