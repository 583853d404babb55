//! Counts what was decided, by rule, limit and outcome.

use super::key::SensitiveHasher;
use super::mode::Mode;
use super::redact::{Sensitivity, ShownDescriptor, detailed_label, detailed_nodes, shown_nodes};
use super::request::{Descriptor, Request};
use super::split::{is_own_shadow, split};
use super::status::{Decision, Limited, Outcome, Status};
use crate::domain::{Hits, Verdict};
use crate::policy::{Rule, RuleLimit};
use crate::telemetry::metrics::{
    Decided, LimitOf, Metrics, OutcomeLabel, ReferenceMetrics, SeriesName, Unruled,
};

/// Counts `decision`, the answer to `request`.
pub(super) fn tally(
    metrics: &Metrics,
    hasher: &SensitiveHasher,
    request: &Request,
    decision: &Decision,
) {
    if decision.unavailable.is_some() {
        metrics.requests.unavailable.inc();
        return;
    }
    match decision.verdict {
        Verdict::Admit => metrics.requests.ok.inc(),
        Verdict::Deny => metrics.requests.over_limit.inc(),
    }
    match decision.statuses.first().map(|status| &status.outcome) {
        Some(Outcome::UnknownDomain) => metrics.requests.unknown_domain.inc(),
        Some(Outcome::OutOfBounds) => metrics.requests.out_of_bounds.inc(),
        _ => {}
    }
    let (reference, near) = (metrics.reference(), metrics.near_limit_ratio);
    if let Some(reference) = reference {
        tally_global_shadow(reference, decision);
    }
    for (descriptor, status) in request.descriptors.iter().zip(&decision.statuses) {
        if status.plan.missing().is_some() {
            metrics.registry.plan_missing.inc();
        }
        match status.outcome {
            Outcome::NoLimit | Outcome::OutOfBounds | Outcome::Settled | Outcome::InvalidHold => {
                continue;
            }
            Outcome::NoRule => {
                metrics.no_rule(request.domain);
                continue;
            }
            Outcome::UnknownDomain => {
                metrics.of_unknown_domain();
                continue;
            }
            Outcome::Unlimited | Outcome::Limited(_) | Outcome::InvalidOverride => {}
        }
        let decided = Decided {
            outcome: outcome(status, descriptor.hits, near),
            hits: descriptor.hits.amount(),
            split: reference.map(|_| split(descriptor.hits, status, near)),
        };
        match status.rule.as_deref() {
            Some(rule) => {
                tally_rule(metrics, hasher, descriptor, decision, (rule, status), decided);
            }
            None => {
                tally_unruled(metrics, hasher, request, descriptor, decision, (status, decided));
            }
        }
    }
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
    let domain = decision.snapshot.policies.domain(request.domain).map(AsRef::as_ref);
    let sensitivity = Sensitivity::of(None, domain);
    shown_nodes(ShownDescriptor::new(&descriptor.entries, sensitivity, hasher))
}

/// Counts a descriptor that `rule` limits.
fn tally_rule(
    metrics: &Metrics,
    hasher: &SensitiveHasher,
    descriptor: &Descriptor,
    decision: &Decision,
    (rule, status): (&Rule, &Status),
    decided: Decided,
) {
    let of = limit_of(status);
    let name = |label: &str| SeriesName {
        domain: rule.domain.to_string(),
        rule: label.to_owned(),
        limit: limit_label(rule, of),
    };
    let entries = &descriptor.entries;
    let nodes = || detailed_nodes(rule, entries, hasher);
    let detailed = detailed_label(rule, entries, hasher)
        // Of values that share a counter: the label of the rule.
        .filter(|label| *label != rule.label)
        .is_some_and(|label| metrics.detailed_rule(&name(&label), nodes, decided));
    if !detailed {
        let counters = decision.snapshot.metrics(rule);
        metrics.decided(counters, of, decided, || name(&rule.label));
    }
}

/// Counts a descriptor that a client or an override limits, and no rule.
fn tally_unruled(
    metrics: &Metrics,
    hasher: &SensitiveHasher,
    request: &Request,
    descriptor: &Descriptor,
    decision: &Decision,
    (status, decided): (&Status, Decided),
) {
    if status.client.is_some() {
        return metrics.unruled(request.domain, Unruled::Client, decided);
    }
    metrics.unruled(request.domain, Unruled::Override, decided);
    if let Some((reference, hits)) = metrics.reference().zip(decided.split) {
        let nodes = override_nodes(request, descriptor, decision, hasher);
        reference.of_override(request.domain, &nodes, hits);
    }
}

/// The limit by which a descriptor was decided, of those that its rule or its client has.
fn limit_of(status: &Status) -> LimitOf {
    match &status.outcome {
        Outcome::Limited(limited) => limited.limit.of,
        Outcome::InvalidOverride => LimitOf::Override,
        _ if status.client.is_some() => LimitOf::Client,
        _ => LimitOf::Rule(0),
    }
}

fn limit_label(rule: &Rule, of: LimitOf) -> String {
    let of_rule = || match of {
        LimitOf::Rule(position) => rule.limits.get(position).map(RuleLimit::label),
        LimitOf::Client | LimitOf::Override => None,
    };
    of.name().map(str::to_owned).or_else(of_rule).unwrap_or_default()
}

/// The outcome of a descriptor with `status`, which asked for `hits`, as metrics name it.
pub(super) fn outcome(status: &Status, hits: Hits, near_ratio: f32) -> OutcomeLabel {
    match (status.degraded, status.failed(), status.shadow) {
        (true, true, _) => OutcomeLabel::DegradedOverLimit,
        (true, false, _) => OutcomeLabel::DegradedAdmitted,
        (false, true, true) => OutcomeLabel::Shadowed,
        (false, true, false) => OutcomeLabel::OverLimit,
        (false, false, _) => match hits {
            Hits::Peek(_) => OutcomeLabel::Peek,
            Hits::Refund(_) => OutcomeLabel::Refund,
            Hits::Take(_) | Hits::Book(_) | Hits::Hold(_) => {
                let near = |limited: &Limited| limited.counted && limited.load.is_near(near_ratio);
                let near = status.limited().is_some_and(near);
                if near { OutcomeLabel::NearLimit } else { OutcomeLabel::Admitted }
            }
        },
    }
}
