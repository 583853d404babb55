//! Headers that the response asks Envoy to add, by setting; none by default, as Envoy writes its
//! own `x-ratelimit-*`.
//!
//! Values are numbers and names that were validated when the policies were loaded; nothing of the
//! request is reflected.
//!
//! Sources: `reference` is what envoyproxy/ratelimit sends; `draft` is
//! draft-ietf-httpapi-ratelimit-headers-10.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use http::HeaderName;

use super::settings::{HeaderStyle, ResponseSettings};
use crate::limiter::status::{Decision, Limited};

/// Adds the headers for `decision` by name and value; none when nothing is limited or the store did
/// not decide.
pub(super) fn headers(
    settings: &ResponseSettings,
    decision: &Decision,
    mut add: impl FnMut(&str, &dyn Display),
) {
    match settings.headers {
        HeaderStyle::Off => {}
        HeaderStyle::Reference => {
            let Some(limited) = tightest(decision) else { return };
            add(settings.limit_header.as_str(), &limited.limit.requests_per_unit);
            add(settings.remaining_header.as_str(), &limited.remaining);
            add(settings.reset_header.as_str(), &whole_seconds(limited.reset_after));
        }
        HeaderStyle::Draft => {
            if decision.statuses.iter().any(|status| status.counted().is_some()) {
                add("ratelimit-policy", &List(decision, write_policy));
                add("ratelimit", &List(decision, write_state));
            }
        }
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

/// An item for each limit of a decision.
struct List<'a>(&'a Decision, fn(&Limited, &mut Formatter<'_>) -> fmt::Result);

impl Display for List<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(decision, write) = self;
        let limited = decision.statuses.iter().filter_map(|status| status.counted());
        for (place, limited) in limited.enumerate() {
            f.write_str(if place == 0 { "" } else { ", " })?;
            // A structured-field string; a limit without a name is called by its place.
            match &limited.limit.name {
                Some(name) => write!(f, "\"{name}\"")?,
                None => write!(f, "\"limit{place}\"")?,
            }
            write(limited, f)?;
        }
        Ok(())
    }
}

fn write_policy(limited: &Limited, f: &mut Formatter<'_>) -> fmt::Result {
    let limit = &limited.limit;
    let window = limit.unit.seconds() * u64::from(limit.unit_multiplier);
    write!(f, ";q={};w={window}", limit.requests_per_unit)
}

fn write_state(limited: &Limited, f: &mut Formatter<'_>) -> fmt::Result {
    write!(f, ";r={};t={}", limited.remaining, whole_seconds(limited.reset_after))
}

/// The request header with the wait of an admitted request, in milliseconds; none: it does not
/// wait.
pub(super) fn delay<'a>(
    name: Option<&'a HeaderName>,
    decision: &Decision,
) -> Option<(&'a str, u64)> {
    let name = name?.as_str();
    Some((name, wait_millis(decision.wait())?))
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
