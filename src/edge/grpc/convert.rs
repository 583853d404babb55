//! Conversion of a protocol request to a request of the limiter.

use tonic_types::{ErrorDetails, StatusExt as _};

use crate::domain::{Hits, SATURATION, Unit};
use crate::edge::pb;
use crate::edge::pb::rate_limit_descriptor::RateLimitOverride;
use crate::limiter::request::{Descriptor, Entry, Override, Request};

/// The reason to reject a request as invalid. Only the proxy controls these fields, so a client
/// cannot use the rejection to bypass a limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadRequest {
    /// No domain.
    #[error("domain must not be empty: it names the policies to apply")]
    EmptyDomain,
    /// No descriptors.
    #[error("descriptors must not be empty: they say what to count")]
    NoDescriptors,
}

impl BadRequest {
    /// The name of the invalid field.
    pub const fn field(self) -> &'static str {
        match self {
            Self::EmptyDomain => "domain",
            Self::NoDescriptors => "descriptors",
        }
    }
}

impl From<BadRequest> for tonic::Status {
    fn from(bad: BadRequest) -> Self {
        let details = ErrorDetails::with_bad_request_violation(bad.field(), bad.to_string());
        Self::with_error_details(tonic::Code::InvalidArgument, bad.to_string(), details)
    }
}

/// Converts `request`, which keeps its text.
pub fn from_pb(request: &pb::RateLimitRequest) -> Result<Request<'_>, BadRequest> {
    let request = unchecked_from_pb(request);
    check(&request).map(|()| request)
}

/// The same of a request that may have no domain and no descriptors.
pub(super) fn unchecked_from_pb(request: &pb::RateLimitRequest) -> Request<'_> {
    // In proto3, 0 means not set: one hit.
    let hits = u64::from(request.hits_addend.max(1));
    let descriptor = |descriptor| descriptor_from_pb(descriptor, hits);
    let descriptors = request.descriptors.iter().map(descriptor).collect();
    Request { domain: &request.domain, descriptors }
}

/// Refuses a request without a domain or descriptors.
pub(super) fn check(request: &Request<'_>) -> Result<(), BadRequest> {
    if request.domain.is_empty() {
        return Err(BadRequest::EmptyDomain);
    }
    if request.descriptors.is_empty() {
        return Err(BadRequest::NoDescriptors);
    }
    Ok(())
}

/// The hits of a descriptor with this `hits_addend` in a request for `of_request` hits.
pub(super) fn hits(own: Option<u64>, is_negative: bool, of_request: u64) -> Hits {
    match (own, is_negative) {
        (Some(hits), true) => Hits::Refund(hits.min(SATURATION)),
        (None, true) => Hits::Refund(of_request),
        (Some(0), false) => Hits::Peek(1),
        (Some(hits), false) => Hits::Take(hits.min(SATURATION)),
        (None, false) => Hits::Take(of_request),
    }
}

pub(super) fn descriptor_from_pb(
    descriptor: &pb::RateLimitDescriptor,
    request_hits: u64,
) -> Descriptor<'_> {
    Descriptor {
        entries: descriptor.entries.iter().map(entry_from_pb).collect(),
        hits: hits(descriptor.hits_addend, descriptor.is_negative_hits, request_hits),
        own_hits: descriptor.hits_addend.is_some(),
        usage: None,
        limit: descriptor.limit.as_ref().map(override_from_pb),
    }
}

fn entry_from_pb(entry: &pb::rate_limit_descriptor::Entry) -> Entry<'_> {
    Entry { key: &entry.key, value: &entry.value }
}

/// The limit that a request brings along.
pub(crate) fn override_from_pb(limit: &RateLimitOverride) -> Override {
    Override {
        requests_per_unit: limit.requests_per_unit,
        unit: unit_from_number(limit.unit),
        unit_multiplier: limit.unit_multiplier.unwrap_or(1),
    }
}

/// The unit of an `envoy.type.v3.RateLimitUnit` number. Also accepts 7, which is WEEK in the enum
/// of the response.
pub(super) const fn unit_from_number(number: i32) -> Option<Unit> {
    match number {
        1 => Some(Unit::Second),
        2 => Some(Unit::Minute),
        3 => Some(Unit::Hour),
        4 => Some(Unit::Day),
        5 => Some(Unit::Month),
        6 => Some(Unit::Year),
        7 => Some(Unit::Week),
        _ => None,
    }
}
