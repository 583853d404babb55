//! Headers that the response asks Envoy to add, by setting; none by default, as Envoy writes its
//! own `x-ratelimit-*`.
//!
//! Values are numbers and names that were validated when the policies were loaded; nothing of the
//! request is reflected.
//!
//! Sources: `reference` is what envoyproxy/ratelimit sends; `draft` is
//! draft-ietf-httpapi-ratelimit-headers-10.

use std::time::Duration;

use http::HeaderName;

use super::settings::{HeaderStyle, ResponseSettings};
use crate::edge::pb::HeaderValue;
use crate::limiter::report::Report;
use crate::limiter::status::{Decision, Limited};

/// The headers for `decision`; none when nothing is limited or the store did not decide.
pub(super) fn headers(settings: &ResponseSettings, decision: &Decision) -> Vec<HeaderValue> {
    match settings.headers {
        HeaderStyle::Off => Vec::new(),
        HeaderStyle::Reference => tightest(decision).map_or_else(Vec::new, |limited| {
            vec![
                header(settings.limit_header.as_str(), limited.limit.requests_per_unit.to_string()),
                header(settings.remaining_header.as_str(), limited.remaining.to_string()),
                header(
                    settings.reset_header.as_str(),
                    whole_seconds(limited.reset_after).to_string(),
                ),
            ]
        }),
        HeaderStyle::Draft => draft(decision),
    }
}

/// The last enforced limit that is over, otherwise the one with the fewest hits left, the first of
/// equals.
fn tightest(decision: &Decision) -> Option<&Limited> {
    let over = decision
        .statuses
        .iter()
        .rev()
        .find(|status| status.over_limit() && status.counted().is_some() && !status.quota);
    over.and_then(|status| status.counted()).or_else(|| {
        let limited = decision.statuses.iter().filter_map(|status| status.counted());
        limited.min_by_key(|limited| limited.remaining)
    })
}

fn draft(decision: &Decision) -> Vec<HeaderValue> {
    let limited: Vec<&Limited> =
        decision.statuses.iter().filter_map(|status| status.counted()).collect();
    if limited.is_empty() {
        return Vec::new();
    }
    let policy = |(i, limited): (usize, &&Limited)| {
        let limit = &limited.limit;
        let window = limit.unit.seconds() * u64::from(limit.unit_multiplier);
        format!("{};q={};w={window}", name(i, limit), limit.requests_per_unit)
    };
    let state = |(i, limited): (usize, &&Limited)| {
        let reset = whole_seconds(limited.reset_after);
        format!("{};r={};t={reset}", name(i, &limited.limit), limited.remaining)
    };
    let list = |items: Vec<String>| items.join(", ");
    vec![
        header("ratelimit-policy", list(limited.iter().enumerate().map(policy).collect())),
        header("ratelimit", list(limited.iter().enumerate().map(state).collect())),
    ]
}

/// A structured-field string; a limit without a name is called by its place.
fn name(place: usize, limit: &Report) -> String {
    limit.name.as_ref().map_or_else(|| format!("\"limit{place}\""), |name| format!("\"{name}\""))
}

fn header(key: &str, value: String) -> HeaderValue {
    HeaderValue { key: key.to_owned(), value, ..HeaderValue::default() }
}

/// The request header with the wait of an admitted request, in milliseconds; none: it does not
/// wait.
pub(super) fn delay(name: Option<&HeaderName>, decision: &Decision) -> Option<HeaderValue> {
    let name = name?.as_str();
    Some(header(name, wait_millis(decision.wait())?.to_string()))
}

/// A wait, rounded up; none: it is shorter than a millisecond, and not worth one.
pub(super) fn wait_millis(wait: Duration) -> Option<u64> {
    (wait >= Duration::from_millis(1)).then(|| whole_millis(wait))
}

/// Rounded up: nobody must come too early.
pub(super) const fn whole_millis(duration: Duration) -> u64 {
    duration.as_micros().div_ceil(1_000) as u64
}

/// Rounded up, and at least 1: Envoy truncates, and a client must not come back too early.
pub(crate) fn whole_seconds(duration: Duration) -> u64 {
    (duration.as_secs() + u64::from(duration.subsec_nanos() > 0)).max(1)
}
