//! A decision as a response of the protocol.

use std::fmt::Display;

use bytes::Bytes;
use http::HeaderName;

use super::headers::{delay, headers, whole_seconds};
use super::metadata::metadata;
use super::settings::ResponseSettings;
use crate::domain::{Unit, Verdict};
use crate::edge::pb::rate_limit_response::rate_limit::Unit as PbUnit;
use crate::edge::pb::rate_limit_response::{Code, DescriptorStatus, RateLimit};
use crate::edge::pb::{self, HeaderValue};
use crate::limiter::key::SensitiveHasher;
use crate::limiter::report::Report;
use crate::limiter::request::Request;
use crate::limiter::status::{Decision, Limited, Outcome, Status};

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
    /// The response to `request`.
    pub fn respond(&self, request: &Request, decision: &Decision) -> pb::RateLimitResponse {
        pb::RateLimitResponse {
            overall_code: code(decision.verdict == Verdict::Deny).into(),
            statuses: decision.statuses.iter().map(status).collect(),
            response_headers_to_add: self.headers(decision),
            request_headers_to_add: delay(self.delay_header.as_ref(), decision)
                .map(|(name, wait)| header(name, &wait))
                .into_iter()
                .collect(),
            dynamic_metadata: if self.settings.dynamic_metadata {
                metadata(request, decision, &self.hasher).into()
            } else {
                Bytes::new()
            },
            ..pb::RateLimitResponse::default()
        }
    }

    fn headers(&self, decision: &Decision) -> Vec<HeaderValue> {
        let mut added = Vec::new();
        headers(&self.settings, decision, |name, value| added.push(header(name, value)));
        added
    }
}

fn header(key: &str, value: &dyn Display) -> HeaderValue {
    HeaderValue { key: key.to_owned(), value: value.to_string(), ..HeaderValue::default() }
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

fn status(status: &Status) -> DescriptorStatus {
    let code = code(status.over_limit()).into();
    match &status.outcome {
        Outcome::NoLimit
        | Outcome::NoRule
        | Outcome::UnknownDomain
        | Outcome::InvalidOverride
        | Outcome::Settled
        | Outcome::InvalidHold
        | Outcome::OutOfBounds => DescriptorStatus { code, ..DescriptorStatus::default() },
        Outcome::Unlimited => {
            DescriptorStatus { code, limit_remaining: u32::MAX, ..DescriptorStatus::default() }
        }
        Outcome::Limited(limited) => limited_status(code, limited),
    }
}

/// Without the store the remaining hits are unknown, so no limit is named: Envoy would write its
/// numbers to `x-ratelimit` headers. A denial still says when to come back.
fn limited_status(code: i32, limited: &Limited) -> DescriptorStatus {
    if !limited.counted {
        let duration_until_reset = (!limited.passed).then(|| until_reset(limited));
        return DescriptorStatus { code, duration_until_reset, ..DescriptorStatus::default() };
    }
    DescriptorStatus {
        code,
        current_limit: Some(current_limit(&limited.limit)),
        limit_remaining: u32::try_from(limited.remaining).unwrap_or(u32::MAX),
        duration_until_reset: Some(until_reset(limited)),
        quota: None,
    }
}

fn until_reset(limited: &Limited) -> prost_types::Duration {
    let seconds = i64::try_from(whole_seconds(limited.reset_after)).unwrap_or(i64::MAX);
    prost_types::Duration { seconds, nanos: 0 }
}

fn current_limit(limit: &Report) -> RateLimit {
    let (unit, unit_multiplier) = unit(limit);
    RateLimit {
        name: limit.name.as_deref().unwrap_or_default().to_owned(),
        requests_per_unit: limit.requests_per_unit,
        unit: unit.into(),
        unit_multiplier,
    }
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
