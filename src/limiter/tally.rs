//! Counts what was decided, by rule and outcome.

use super::key::SensitiveHasher;
use super::mode::Mode;
use super::redact::{Sensitivity, ShownDescriptor, detailed_label, detailed_nodes, shown_nodes};
use super::request::{Descriptor, Request};
use super::split::{is_own_shadow, split};
use super::status::{Decision, Outcome, Status};
use crate::domain::Verdict;
use crate::telemetry::metrics::{HitSplit, Metrics, ReferenceMetrics, RuleMetrics, Unruled};

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
    let reference = metrics.reference();
    if let Some(reference) = reference {
        tally_global_shadow(reference, decision);
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
        let hits = reference.map(|of| split(descriptor.hits, status, of.near_limit_ratio));
        let count = |counters: &RuleMetrics| count(counters, status, hits);
        let Some(rule) = status.rule.as_deref() else {
            let client = status.client.is_some();
            let unruled = if client { Unruled::Client } else { Unruled::Override };
            metrics.unruled(&request.domain, unruled, count);
            if let Some((reference, hits)) = reference.zip(hits).filter(|_| !client) {
                let nodes = override_nodes(request, descriptor, decision, hasher);
                reference.of_override(&request.domain, &nodes, hits);
            }
            continue;
        };
        let entries = &descriptor.entries;
        let nodes = || detailed_nodes(rule, entries, hasher);
        let detailed = detailed_label(rule, entries, hasher)
            .is_some_and(|label| metrics.detailed_rule(&rule.domain, &label, nodes, count));
        if !detailed {
            count(decision.snapshot.metrics(rule));
        }
    }
    over_limit
}

/// Counts a request that passes because its domain, and not its rules, is in shadow mode.
fn tally_global_shadow(reference: &ReferenceMetrics, decision: &Decision) {
    let over = |status: &Status| status.failed() && !is_own_shadow(status);
    if decision.mode == Mode::Shadow && decision.statuses.iter().any(over) {
        reference.global_shadow_mode.inc();
    }
}

/// The entries of a descriptor that no rule matches, as nodes of envoyproxy/ratelimit.
fn override_nodes(
    request: &Request,
    descriptor: &Descriptor,
    decision: &Decision,
    hasher: &SensitiveHasher,
) -> Vec<String> {
    let domain = decision.snapshot.policies.domain(&request.domain).map(AsRef::as_ref);
    let sensitivity = Sensitivity::of(None, domain);
    shown_nodes(ShownDescriptor::new(&descriptor.entries, sensitivity, hasher))
}

fn count(metrics: &RuleMetrics, status: &Status, hits: Option<HitSplit>) {
    let counter = match (status.failed(), status.shadow) {
        (false, _) => &metrics.ok,
        (true, false) => &metrics.over_limit,
        (true, true) => &metrics.shadowed,
    };
    counter.inc();
    if let Some((counters, hits)) = metrics.hits.as_ref().zip(hits) {
        counters.add(hits);
    }
}
