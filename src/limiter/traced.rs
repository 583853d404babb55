//! The attributes of a decision's span.
//!
//! They are names of policies and counts. No value of a request is among them: a domain that no
//! policy and no client names is `(unknown)`.

use super::request::Request;
use super::status::{Decision, Limited, Outcome, Status};
use super::tally::outcome;
use crate::domain::{Hits, Verdict};
use crate::telemetry::escape::escape;
use crate::telemetry::traces::Trace;

/// Describes `decision`, the answer to `request`, in its span. Of several descriptors it has the
/// one that decides: the first over its limit, otherwise the first with a limit.
/// `near_ratio` is the part of a limit from which on it is nearly used up.
pub(super) fn describe(trace: &mut Trace, request: &Request, decision: &Decision, near_ratio: f32) {
    if let Some(reason) = decision.unavailable {
        trace.fail(reason);
    }
    let named = decision.snapshot.policies.domain(request.domain).is_some()
        || decision.statuses.iter().any(|status| status.client.is_some());
    let domain = if named { escape(request.domain).to_string() } else { "(unknown)".to_owned() };
    trace.set("tollgate.domain", domain);
    let code = match (decision.unavailable, decision.verdict) {
        (Some(_), _) => "UNAVAILABLE",
        (None, Verdict::Admit) => "OK",
        (None, Verdict::Deny) => "OVER_LIMIT",
    };
    trace.set("tollgate.code", code);
    let descriptors = i64::try_from(request.descriptors.len()).unwrap_or(i64::MAX);
    trace.set("tollgate.descriptors", descriptors);
    trace.set("tollgate.degraded", decision.statuses.iter().any(|status| status.degraded));
    let statuses = || request.descriptors.iter().zip(&decision.statuses);
    let deciding = statuses()
        .find(|(_, status)| status.over_limit())
        .or_else(|| statuses().find(|(_, status)| status.failed()))
        .or_else(|| statuses().find(|(_, status)| status.limited().is_some()));
    let Some((descriptor, status)) = deciding else { return };
    if status.limited().is_some() {
        trace.set("tollgate.rule", status.rule_label().to_owned());
    }
    trace.set("tollgate.limit", limit(status));
    trace.set("tollgate.outcome", outcome(status, descriptor.hits, near_ratio).name());
    trace.set("tollgate.hits", hits(descriptor.hits));
}

/// The limit that matters most as metrics name it, otherwise why there is none.
fn limit(status: &Status) -> String {
    match &status.outcome {
        Outcome::Limited(Limited { limit, .. }) => limit.label(),
        outcome => outcome.reason().map_or_else(String::new, |reason| format!("({reason})")),
    }
}

/// The hits that a descriptor asks for; negative ones are given back.
fn hits(hits: Hits) -> i64 {
    let count = |hits| i64::try_from(hits).unwrap_or(i64::MAX);
    match hits {
        Hits::Take(hits) | Hits::Book(hits) | Hits::Peek(hits) => count(hits),
        Hits::Hold(_) => 1,
        Hits::Refund(hits) => -count(hits),
    }
}
