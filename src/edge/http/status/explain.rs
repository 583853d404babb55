//! The explanation of a decision on one descriptor, which charges nothing.

use serde::Serialize;

use super::query::Query;
use super::state::ScaleState;
use crate::domain::Verdict;
use crate::edge::grpc::rls::Rls;
use crate::edge::pb;
use crate::limiter::Shared;
use crate::limiter::explain::{CounterState, Explanation};
use crate::limiter::report::Report;
use crate::limiter::resolve::ClientPlan;
use crate::settings::Word as _;
use crate::store::LimitStore;
use crate::telemetry::escape::escape;

/// The reason for which a request cannot be explained.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum ExplainFault {
    /// There is nothing to explain.
    #[error("{0} is missing: ask for ?domain=D&entry=KEY=VALUE, with an entry for each key")]
    Missing(&'static str),
    /// An entry has no value.
    #[error("entry {0:?} is no KEY=VALUE")]
    Entry(String),
    /// The hits are no number.
    #[error("hits {0:?} is no number")]
    Hits(String),
    /// The request is invalid otherwise.
    #[error("{0}")]
    Invalid(String),
}

/// An explanation.
#[derive(Debug, Serialize)]
pub(super) struct Explained {
    admitted: bool,
    mode: String,
    domain_known: bool,
    decided_by: &'static str,
    rule: String,
    /// The file and line of the rule.
    place: String,
    client: String,
    plan: String,
    /// The plan that the client names and that does not exist.
    plan_missing: String,
    shadow: bool,
    /// The rule is turned, and the limits are that part.
    scale: Option<ScaleState>,
    limits: Vec<LimitState>,
}

#[derive(Debug, Serialize)]
struct LimitState {
    limit: String,
    key: String,
    passes: bool,
    remaining: u64,
    retry_after_ms: Option<u64>,
    reset_after_ms: u64,
    degraded: bool,
    /// The hits that are held until the cost is known; none: they are taken at once.
    estimate: Option<u64>,
    /// The source of the estimate.
    estimate_source: &'static str,
}

/// Explains the descriptor of `query`.
pub(super) async fn explain<S: LimitStore>(
    rls: &Rls<S>,
    query: &Query,
) -> Result<Explained, ExplainFault> {
    let explanation = rls.explain(request(query)?).await;
    let explanation = explanation.map_err(|bad| ExplainFault::Invalid(bad.to_string()))?;
    Ok(answer(rls.limiter().shared(), &explanation))
}

fn request(query: &Query) -> Result<pb::RateLimitRequest, ExplainFault> {
    let domain = query.one("domain").ok_or(ExplainFault::Missing("domain"))?;
    let entry = |text: &str| {
        let (key, value) =
            text.split_once('=').ok_or_else(|| ExplainFault::Entry(text.to_owned()))?;
        let bytes = |text: &str| text.as_bytes().to_vec().into();
        Ok(pb::rate_limit_descriptor::Entry { key: bytes(key), value: bytes(value) })
    };
    let entries: Vec<_> = query.all("entry").map(entry).collect::<Result<_, _>>()?;
    if entries.is_empty() {
        return Err(ExplainFault::Missing("entry"));
    }
    let hits = query
        .one("hits")
        .map_or(Ok(1), |text| text.parse().map_err(|_| ExplainFault::Hits(text.to_owned())))?;
    Ok(pb::RateLimitRequest {
        domain: domain.as_bytes().to_vec().into(),
        descriptors: vec![pb::RateLimitDescriptor { entries, ..Default::default() }],
        hits_addend: hits,
    })
}

fn answer(shared: &Shared, explanation: &Explanation) -> Explained {
    let Explanation { decision, domain_known, descriptors } = explanation;
    let (status, explained) = (decision.statuses.first(), descriptors.first());
    let rule = status.and_then(|status| status.rule.as_deref());
    let client = status.and_then(|status| status.client.as_ref());
    let plan = status.map(|status| &status.plan);
    let now = || shared.resolver.clients.now();
    let turned = rule.and_then(|rule| decision.snapshot.dial(rule).turned(now));
    let title = |name| shared.resolver.client_title(name, &shared.policies.current());
    Explained {
        admitted: decision.verdict == Verdict::Admit,
        mode: decision.mode.word().to_owned(),
        domain_known: *domain_known,
        decided_by: explained.map_or("none", |explained| explained.decided_by.name()),
        rule: rule.map(|rule| rule.label.clone()).unwrap_or_default(),
        place: rule.map(|rule| rule.place.to_string()).unwrap_or_default(),
        client: client.map(|client| title(&client.name)).unwrap_or_default(),
        plan: plan
            .and_then(ClientPlan::in_force)
            .map(|plan| plan.name.to_string())
            .unwrap_or_default(),
        plan_missing: plan.and_then(ClientPlan::missing).unwrap_or_default().to_owned(),
        shadow: status.is_some_and(|status| status.shadow),
        scale: turned.map(ScaleState::from),
        limits: explained.iter().flat_map(|explained| &explained.counters).map(limit).collect(),
    }
}

fn limit(counter: &CounterState) -> LimitState {
    let reading = &counter.ruling.reading;
    let millis = |wait: std::time::Duration| {
        u64::try_from(wait.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX)
    };
    LimitState {
        limit: numbers(&counter.report),
        key: escape(counter.key.as_bytes()).to_string(),
        passes: reading.passed,
        remaining: reading.remaining,
        retry_after_ms: reading.retry_after.filter(|_| !reading.passed).map(millis),
        reset_after_ms: millis(reading.reset_after),
        degraded: counter.ruling.degraded(),
        estimate: counter.estimate.map(|(hits, _)| hits),
        estimate_source: counter.estimate.map_or("", |(_, basis)| basis.name()),
    }
}

/// The limit by its label. That of one on requests at a time says how many.
fn numbers(report: &Report) -> String {
    match &report.name {
        _ if !report.concurrent => report.label(),
        Some(name) => format!("{name}: {} at a time", report.requests_per_unit),
        None => report.to_string(),
    }
}
