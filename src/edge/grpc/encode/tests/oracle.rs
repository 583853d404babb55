//! The response to a decision as the message of the protocol, made without the encoder.

use std::fmt::Display;

use bytes::Bytes;

use crate::domain::Verdict;
use crate::edge::grpc::headers::{delay, headers, whole_seconds};
use crate::edge::grpc::metadata::write_metadata;
use crate::edge::grpc::response::{Responder, code, unit};
use crate::edge::pb::rate_limit_response::{DescriptorStatus, RateLimit};
use crate::edge::pb::{self, HeaderValue};
use crate::limiter::report::Report;
use crate::limiter::request::Request;
use crate::limiter::status::{Decision, Limited, Outcome, Status};

/// The response of `responder` to `request`.
pub(super) fn response(
    responder: &Responder,
    request: &Request,
    decision: &Decision,
) -> pb::RateLimitResponse {
    let mut added = Vec::new();
    headers(&responder.settings, decision, |name, value| added.push(header(name, value)));
    let delay = delay(responder.delay_header.as_ref(), decision);
    let mut metadata = Vec::new();
    if responder.settings.dynamic_metadata {
        write_metadata(&mut metadata, request, decision, &responder.hasher);
    }
    pb::RateLimitResponse {
        overall_code: code(decision.verdict == Verdict::Deny).into(),
        statuses: decision.statuses.iter().map(status).collect(),
        response_headers_to_add: added,
        request_headers_to_add: delay.map(|(name, wait)| header(name, &wait)).into_iter().collect(),
        dynamic_metadata: Bytes::from(metadata),
        ..pb::RateLimitResponse::default()
    }
}

fn header(key: &str, value: &dyn Display) -> HeaderValue {
    HeaderValue { key: key.to_owned(), value: value.to_string(), ..HeaderValue::default() }
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
