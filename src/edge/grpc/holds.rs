//! `tollgate.v1.HoldService`, for callers that hold and settle without a proxy.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::callers::Askable;
use super::convert::descriptor_from_pb;
use super::head::patience;
use super::headers::wait_millis;
use super::rls::{Rls, Unanswered};
use crate::edge::pb::tollgate::v1 as pb;
use crate::edge::pb::tollgate::v1::hold_service_server::HoldService;
use crate::edge::pb::tollgate::v1::settle_response::State;
use crate::edge::pb::{RateLimitDescriptor, RateLimitRequest};
use crate::limiter::holds::{BadEnd, End, Ending};
use crate::limiter::signals::Fared;
use crate::store::LimitStore;

/// The name of the spans of reservations.
const SPAN_NAME: &str = "tollgate.v1.HoldService/Reserve";

/// The wait for the store of a caller that states none, and the longest of any.
const WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// The most outcomes of one report.
const MOST_OUTCOMES: usize = 1_000;

/// The domains that the caller of a call may ask about; `None`: all.
#[derive(Clone, Debug)]
pub(super) struct Asker(pub(super) Option<Arc<Askable>>);

/// Serves holds by the limiter of a core.
#[derive(Debug)]
pub(super) struct Holds<S>(pub(super) Arc<Rls<S>>);

#[tonic::async_trait]
impl<S: LimitStore> HoldService for Holds<S> {
    async fn reserve(
        &self,
        request: Request<pb::ReserveRequest>,
    ) -> Result<Response<pb::ReserveResponse>, Status> {
        let headers = request.metadata().as_ref();
        let (patience, trace) = (patience(headers), self.0.trace(SPAN_NAME, headers));
        let wanted = |pb::ReserveRequest { request }| required(request, "request");
        let asked: RateLimitRequest = self.permitted(request, wanted, |asked| &asked.domain)?;
        let answered = self.0.answer(asked, patience, trace).await.map_err(of_reserve)?;
        let hold = answered.hold;
        let response = pb::ReserveResponse {
            response: Some(answered.response),
            handle: hold.as_ref().map(|hold| hold.handle.clone()).unwrap_or_default(),
            expires_in_ms: hold.as_ref().map_or(0, |hold| millis(hold.ttl)),
            wait_ms: wait_millis(answered.wait).unwrap_or_default(),
        };
        // Nothing awaits from here on: the answer is handed on.
        if let Some(hold) = hold {
            hold.heard();
        }
        Ok(Response::new(response))
    }

    async fn settle(
        &self,
        request: Request<pb::SettleRequest>,
    ) -> Result<Response<pb::SettleResponse>, Status> {
        let due = due(&request);
        let wanted = |request: pb::SettleRequest| {
            let usage = request.usage.into_iter().map(|usage| (usage.descriptor, usage.hits));
            let of = (request.domain, request.handle, request.outcome);
            ending(of, usage, "usage", ".descriptor")
        };
        self.end(&self.permitted(request, wanted, |ending| ending.domain.as_bytes())?, due).await
    }

    async fn release(
        &self,
        request: Request<pb::ReleaseRequest>,
    ) -> Result<Response<pb::SettleResponse>, Status> {
        let due = due(&request);
        let wanted = |request: pb::ReleaseRequest| {
            let nothing = request.descriptors.into_iter().map(|one| (Some(one), Some(0)));
            let of = (request.domain, request.handle, request.outcome);
            ending(of, nothing, "descriptors", "")
        };
        self.end(&self.permitted(request, wanted, |ending| ending.domain.as_bytes())?, due).await
    }

    async fn report(
        &self,
        request: Request<pb::ReportRequest>,
    ) -> Result<Response<pb::ReportResponse>, Status> {
        let wanted = |request: pb::ReportRequest| {
            if request.outcomes.len() > MOST_OUTCOMES {
                let text = format!("has {} items, at most {MOST_OUTCOMES}", request.outcomes.len());
                return Err(violation("outcomes", &text));
            }
            let outcomes = request.outcomes.into_iter();
            let ends = outcomes.map(|outcome| (outcome.count.unwrap_or(1), fared(outcome)));
            Ok((request.domain, request.rule, ends.collect::<Vec<_>>()))
        };
        let (domain, rule, ends) =
            self.permitted(request, wanted, |(domain, ..)| domain.as_bytes())?;
        if !self.0.limiter().shared().report_ends(domain.as_bytes(), &rule, &ends) {
            return Err(violation("rule", "is no rule of the domain that adapts"));
        }
        Ok(Response::new(pb::ReportResponse {}))
    }

    async fn renew(
        &self,
        request: Request<pb::RenewRequest>,
    ) -> Result<Response<pb::RenewResponse>, Status> {
        let due = due(&request);
        let wanted = |request: pb::RenewRequest| {
            let descriptors = request.descriptors.into_iter().map(|one| (Some(one), None));
            let of = (request.domain, request.handle, None);
            ending(of, descriptors, "descriptors", "")
        };
        let ending = self.permitted(request, wanted, |ending| ending.domain.as_bytes())?;
        let renewed = self.0.limiter().renew_hold(&ending.end(), due).await.map_err(refusal)?;
        if renewed.handle.is_none() && !renewed.is_answered {
            return Err(Status::unavailable("the store of counters does not answer"));
        }
        Ok(Response::new(pb::RenewResponse {
            expires_in_ms: renewed.handle.as_ref().map_or(0, |_| millis(renewed.expires_in)),
            handle: renewed.handle.unwrap_or_default(),
            held: renewed.is_whole,
        }))
    }
}

impl<S: LimitStore> Holds<S> {
    /// The result of `wanted` for the message, if its caller may ask about its domain.
    fn permitted<M, T>(
        &self,
        request: Request<M>,
        wanted: impl FnOnce(M) -> Result<T, Status>,
        domain: impl FnOnce(&T) -> &[u8],
    ) -> Result<T, Status> {
        let asker = request.extensions().get::<Asker>().cloned();
        let Asker(askable) = asker.ok_or_else(|| Status::internal("the caller is not known"))?;
        let wanted = wanted(request.into_inner())?;
        self.0.permit(askable.as_deref(), domain(&wanted))?;
        Ok(wanted)
    }

    async fn end(
        &self,
        ending: &EndingHold,
        due: Instant,
    ) -> Result<Response<pb::SettleResponse>, Status> {
        let ending = self.0.limiter().end_hold(&ending.end(), due).await.map_err(refusal)?;
        let state = match ending {
            None => State::Unspecified,
            Some(Ending::Settled) => State::Settled,
            Some(Ending::Again) => State::Again,
            Some(Ending::Late) => State::Late,
            Some(Ending::Unmatched) => State::Unmatched,
        };
        let response = pb::SettleResponse { state: state.into(), booked: ending.is_some() };
        Ok(Response::new(response))
    }
}

/// A hold that ends, or is to go on.
struct EndingHold {
    domain: String,
    handle: String,
    descriptors: Vec<(RateLimitDescriptor, Option<u64>)>,
    fared: Fared,
}

impl EndingHold {
    fn end(&self) -> End<'_> {
        let each = self.descriptors.iter();
        End {
            domain: self.domain.as_bytes(),
            handle: self.handle.as_bytes(),
            descriptors: each.map(|(one, hits)| (descriptor_from_pb(one, 1), *hits)).collect(),
            fared: self.fared,
        }
    }
}

/// The hold of these fields; `list` names the field of the descriptors, and `descriptor` that of
/// one in its item.
fn ending(
    (domain, handle, outcome): (String, String, Option<pb::Outcome>),
    descriptors: impl Iterator<Item = (Option<RateLimitDescriptor>, Option<u64>)>,
    list: &str,
    descriptor: &str,
) -> Result<EndingHold, Status> {
    if domain.is_empty() {
        return Err(violation("domain", "must not be empty: it names the policies to apply"));
    }
    let each = descriptors.enumerate().map(|(i, (one, hits))| {
        let one = required(one, &format!("{list}[{i}]{descriptor}"))?;
        // Hits of 1: the counters are those of an ordinary request.
        let plain = RateLimitDescriptor { hits_addend: None, is_negative_hits: false, ..one };
        Ok((plain, hits))
    });
    let descriptors: Vec<_> = each.collect::<Result<_, Status>>()?;
    if descriptors.is_empty() {
        return Err(violation(list, "must not be empty: a handle does not carry its descriptors"));
    }
    let fared = outcome.map(fared).unwrap_or_default();
    Ok(EndingHold { domain, handle, descriptors, fared })
}

fn fared(outcome: pb::Outcome) -> Fared {
    let code = outcome.code.map(u64::from);
    Fared { code, millis: outcome.latency_ms, ..Fared::default() }
}

fn required<T>(value: Option<T>, field: &str) -> Result<T, Status> {
    value.ok_or_else(|| violation(field, "is required"))
}

fn violation(field: &str, text: &str) -> Status {
    let details = ErrorDetails::with_bad_request_violation(field, text);
    Status::with_error_details(Code::InvalidArgument, format!("{field}: {text}"), details)
}

fn refusal(bad: BadEnd) -> Status {
    let field = match bad {
        BadEnd::Handle => "handle",
        BadEnd::OutOfBounds => "descriptors",
    };
    violation(field, &bad.to_string())
}

fn of_reserve(unanswered: Unanswered) -> Status {
    match unanswered {
        Unanswered::Invalid(bad) => {
            violation(&format!("request.{}", bad.field()), &bad.to_string())
        }
        Unanswered::Unavailable(reason) => Status::unavailable(reason),
    }
}

/// The time until which a call waits for the store.
fn due<M>(request: &Request<M>) -> Instant {
    let patience = patience(request.metadata().as_ref()).unwrap_or(WAIT);
    Instant::now() + patience.min(LONGEST_WAIT)
}

/// Rounded down: a hold must not be used beyond its end.
fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
