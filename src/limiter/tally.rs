//! Counts what was decided, by rule and outcome.

use super::key::SensitiveHasher;
use super::redact::detailed_label;
use super::request::Request;
use super::status::{Decision, Outcome, Status};
use crate::domain::Verdict;
use crate::telemetry::metrics::{Metrics, RuleMetrics, Unruled};

/// Counts `decision`, the answer to `request`. Returns true if a descriptor is over a limit,
/// shadowed or not.
pub(super) fn tally(
    metrics: &Metrics,
    hasher: &SensitiveHasher,
    request: &Request,
    decision: &Decision,
) -> bool {
    if decision.unavailable.is_some() {
        metrics.requests_unavailable.inc();
        return false;
    }
    match decision.verdict {
        Verdict::Admit => metrics.requests_ok.inc(),
        Verdict::Deny => metrics.requests_over_limit.inc(),
    }
    match decision.statuses.first().map(|status| &status.outcome) {
        Some(Outcome::UnknownDomain) => metrics.unknown_domain.inc(),
        Some(Outcome::OutOfBounds) => metrics.out_of_bounds.inc(),
        _ => {}
    }
    let mut over_limit = false;
    for (descriptor, status) in request.descriptors.iter().zip(&decision.statuses) {
        match status.outcome {
            Outcome::NoLimit | Outcome::OutOfBounds => continue,
            Outcome::NoRule => {
                metrics.no_rule(&request.domain);
                continue;
            }
            Outcome::UnknownDomain => {
                metrics.of_unknown_domain.inc();
                continue;
            }
            Outcome::Unlimited | Outcome::Limited(_) | Outcome::InvalidOverride => {}
        }
        over_limit |= status.failed();
        let count = |counters: &RuleMetrics| count(counters, status);
        let Some(rule) = status.rule.as_deref() else {
            let client = status.client.is_some();
            let unruled = if client { Unruled::Client } else { Unruled::Override };
            metrics.unruled(&request.domain, unruled, count);
            continue;
        };
        let detailed = detailed_label(rule, &descriptor.entries, hasher)
            .is_some_and(|label| metrics.detailed_rule(&rule.domain, &label, count));
        if !detailed {
            count(decision.snapshot.metrics(rule));
        }
    }
    over_limit
}

fn count(metrics: &RuleMetrics, status: &Status) {
    let counter = match (status.failed(), status.shadow) {
        (false, _) => &metrics.ok,
        (true, false) => &metrics.over_limit,
        (true, true) => &metrics.shadowed,
    };
    counter.inc();
}
