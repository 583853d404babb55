//! Dynamic metadata: the rule that decided, for access logs and for support.
//!
//! ```text
//! { domain: "edge",
//!   descriptors: [ { entries: ["api_key=acme"], rule: "api_key", client: "api_key=acme",
//!                    plan: "gold", plan_missing: "gold",
//!                    limits_over: ["per-key"], over_limit: true, shadow: true, degraded: true,
//!                    replicas: 3, retry_after_ms: 1250, wait_ms: 80, reason: "no_rule" } ],
//!   hold: "AQAA..",
//!   metadata: { ..of the clients, plans and rules of descriptors within their limit, merged.. } }
//! ```
//! `hold` is the handle of what limits hold for the request.
//! A field that would be false or empty is absent. Values that are not UTF-8 are percent-escaped,
//! sensitive ones hashed.

use std::fmt::Write as _;

use serde_json::{Map, Value as Json};

use super::headers::{wait_millis, whole_millis};
use super::structs::{Fields, head};
use crate::domain::Verdict;
use crate::limiter::key::SensitiveHasher;
use crate::limiter::redact::{Sensitivity, ShownDescriptor};
use crate::limiter::request::Request;
use crate::limiter::status::{Decision, Status};
use crate::telemetry::escape::write_escaped;

/// The beginning of the field of this name.
macro_rules! head {
    ($name:literal) => {
        const { &head::<{ $name.len() + 6 }>($name) }
    };
}

/// Appends the metadata of `decision`, a `google.protobuf.Struct`.
pub(super) fn write_metadata(
    out: &mut Vec<u8>,
    request: &Request,
    decision: &Decision,
    hasher: &SensitiveHasher,
) {
    let domain = decision.snapshot.policies.domain(request.domain).map(AsRef::as_ref);
    let admitted = decision.verdict == Verdict::Admit;
    let mut fields = Fields(out);
    fields.known(head!("domain"), |at| at.text(|text| write_escaped(text, request.domain)));
    fields.known(head!("descriptors"), |at| {
        at.list(|list| {
            for (descriptor, status) in request.descriptors.iter().zip(&decision.statuses) {
                let sensitivity = Sensitivity::of(status.rule.as_deref(), domain);
                let shown = ShownDescriptor::new(&descriptor.entries, sensitivity, hasher);
                list.value(|at| at.fields(|fields| describe(fields, shown, status, admitted)));
            }
        });
    });
    if let Some(hold) = &decision.hold {
        fields.known(head!("hold"), |at| at.str(&hold.handle));
    }
    let mut merged = None;
    for status in decision.statuses.iter().filter(|status| !status.over_limit()) {
        let client = status.client.as_ref().and_then(|client| client.metadata.as_deref());
        let plan = || status.plan.in_force().and_then(|plan| plan.metadata.as_deref());
        let own = client
            .or_else(plan)
            .or_else(|| status.rule.as_ref().and_then(|rule| rule.metadata.as_deref()));
        if let Some(own) = own {
            merge(merged.get_or_insert_with(Map::new), own);
        }
    }
    if let Some(merged) = merged.filter(|merged| !merged.is_empty()) {
        fields.known(head!("metadata"), |at| at.map(&merged));
    }
}

fn describe(fields: &mut Fields<'_>, shown: ShownDescriptor<'_>, status: &Status, admitted: bool) {
    if status.client.is_some() {
        fields.known(head!("client"), |at| at.text(|text| write!(text, "{shown}")));
    }
    fields.known(head!("entries"), |at| {
        at.list(|list| {
            for entry in shown.entries() {
                match entry.plain() {
                    Some((key, value)) => list.text_of(&[key, b"=", value]),
                    None => list.value(|at| at.text(|to| entry.write(to))),
                }
            }
        });
    });
    if let Some(plan) = status.plan.in_force() {
        fields.known(head!("plan"), |at| at.str(&plan.name));
    }
    if let Some(missing) = status.plan.missing() {
        fields.known(head!("plan_missing"), |at| at.str(missing));
    }
    if let Some(rule) = &status.rule {
        fields.known(head!("rule"), |at| at.str(&rule.label));
    }
    let flags = [
        (&head!("over_limit")[..], status.over_limit()),
        (head!("shadow"), status.shadow && status.failed()),
        (head!("degraded"), status.degraded),
    ];
    for (name, _) in flags.into_iter().filter(|(_, holds)| *holds) {
        fields.known(name, |at| at.bool(true));
    }
    if let Some(replicas) = status.replicas {
        fields.known(head!("replicas"), |at| at.number(replicas.into()));
    }
    if let Some(limited) = status.limited().filter(|limited| !limited.passed) {
        fields.known(head!("limits_over"), |at| {
            at.list(|list| {
                limited
                    .failed
                    .iter()
                    .for_each(|limit| list.value(|at| at.text(|text| write!(text, "{limit}"))));
            });
        });
        if let Some(retry) = limited.retry_after {
            fields.known(head!("retry_after_ms"), |at| at.number(whole_millis(retry) as f64));
        }
    }
    let wait = status.limited().filter(|_| admitted).and_then(|limited| wait_millis(limited.wait));
    if let Some(millis) = wait {
        fields.known(head!("wait_ms"), |at| at.number(millis as f64));
    }
    if let Some(reason) = status.outcome.reason() {
        fields.known(head!("reason"), |at| at.str(reason));
    }
}

/// Adds what `into` has not; maps are merged, of two other values the first stays.
fn merge(into: &mut Map<String, Json>, from: &Map<String, Json>) {
    for (key, value) in from {
        match (into.get_mut(key), value) {
            (Some(Json::Object(inner)), Json::Object(more)) => merge(inner, more),
            (Some(_), _) => {}
            (None, _) => {
                into.insert(key.clone(), value.clone());
            }
        }
    }
}
