//! `Explain`: what would become of a request, as the limiter explains it, in words of the protocol.

use std::time::Duration;

use tonic::Status;

use super::service::Admin;
use super::violations::violation;
use super::{convert, scale};
use crate::control::audit;
use crate::control::registry::Registry;
use crate::domain::Verdict;
use crate::edge::grpc::convert::from_pb;
use crate::edge::pb::rate_limit_response::Code;
use crate::edge::pb::tollgate::v1 as pb;
use crate::limiter::Shared;
use crate::limiter::explain::{CounterState, DecidedBy, Explained, Explanation};
use crate::limiter::mode::Mode;
use crate::limiter::status::{Outcome, Status as Fared};
use crate::store::LimitStore;
use crate::telemetry::escape::escape;

/// Explains a request.
pub(super) async fn explain<R: Registry, S: LimitStore>(
    admin: &Admin<R, S>,
    request: pb::ExplainRequest,
) -> Result<pb::ExplainResponse, Status> {
    let request = request.request.ok_or_else(|| violation("request", "is required"))?;
    let request = from_pb(&request)
        .map_err(|bad| violation(&format!("request.{}", bad.field()), bad.to_string()))?;
    let explanation = admin.limiter.explain(&request, admin.deadline()).await;
    Ok(answer(admin.shared(), &explanation))
}

fn answer(shared: &Shared, explanation: &Explanation) -> pb::ExplainResponse {
    let Explanation { decision, domain_known, descriptors } = explanation;
    let code = if decision.verdict == Verdict::Deny { Code::OverLimit } else { Code::Ok };
    let descriptor = |(i, status): (usize, &Fared)| {
        let mut told = told(status, descriptors.get(i));
        if let Some(rule) = &status.rule {
            told.rule.clone_from(&rule.label);
            told.place = rule.place.to_string();
            let dial = decision.snapshot.dial(rule);
            let now = || shared.resolver.clients.now();
            told.scale_percent = dial.in_force(now).map(|(part, _)| scale::percent(part));
        }
        if let Some(client) = &status.client {
            told.client = audit::descriptor_title(shared, &client.name);
            told.client_etag = convert::etag(client.revision);
        }
        if let Some(plan) = status.plan.in_force() {
            told.plan = plan.name.to_string();
        }
        status.plan.missing().unwrap_or_default().clone_into(&mut told.plan_missing);
        told
    };
    let looked_at = decision.mode != Mode::Off;
    let statuses = decision.statuses.iter().enumerate().filter(|_| looked_at);
    pb::ExplainResponse {
        overall_code: code.into(),
        descriptors: statuses.map(descriptor).collect(),
        mode: convert::mode(decision.mode).into(),
        domain_known: Some(*domain_known),
    }
}

/// The explanation of a descriptor without its rule and client.
fn told(status: &Fared, explained: Option<&Explained>) -> pb::explain_response::Descriptor {
    let decided_by = explained.map_or(DecidedBy::Nobody, |explained| explained.decided_by);
    let decided_by = match status.outcome {
        Outcome::OutOfBounds => "out_of_bounds",
        Outcome::Settled | Outcome::InvalidHold => "hold",
        _ => decided_by.name(),
    };
    pb::explain_response::Descriptor {
        decided_by: decided_by.to_owned(),
        counters: explained.iter().flat_map(|e| &e.counters).map(counter).collect(),
        shadow: Some(status.shadow),
        quota: Some(explained.is_some_and(|explained| explained.quota)),
        unlimited: Some(matches!(status.outcome, Outcome::Unlimited)),
        over_limit: Some(status.over_limit()),
        ..Default::default()
    }
}

fn counter(state: &CounterState) -> pb::explain_response::Counter {
    let reading = &state.ruling.reading;
    pb::explain_response::Counter {
        limit: Some(convert::counter_limit(state)),
        key: escape(state.key.as_bytes()).to_string(),
        passes: Some(reading.passed),
        remaining: Some(reading.remaining),
        retry_after_ms: reading.retry_after.filter(|_| !reading.passed).map(millis),
        reset_after_ms: Some(millis(reading.reset_after)),
        degraded: Some(state.ruling.degraded()),
        estimate: state.estimate.map(|(hits, _)| hits),
        estimate_source: state.estimate.map_or("", |(_, basis)| basis.name()).to_owned(),
    }
}

/// Rounded up: nobody must come back too early.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX)
}
