//! `envoy.service.ratelimit.v3.RateLimitService`, for gRPC and for `/json`.
//!
//! A denied request is an answer, never a gRPC error: Envoy lets a request pass on any error. A
//! call fails only if it is invalid, or if its limits leave it to the caller.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response};
use hyper::body::Incoming;
use prost::DecodeError;
use tokio::time::Instant;
use tonic::Status;

use super::callers::{Askable, FORBIDDEN};
use super::convert::{BadRequest, check, from_pb};
use super::head::{Head, Terms};
use super::response::{Responder, unread};
use super::unary::{self, Arrived, Framed, InvalidMessage, Reply};
use super::{decode, encode};
use crate::domain::Verdict;
use crate::edge::listener::memory::Memory;
use crate::edge::pb;
use crate::limiter::Limiter;
use crate::limiter::explain::Explanation;
use crate::limiter::holds::Issued;
use crate::limiter::request::Request;
use crate::limiter::status::{Decided, Decision};
use crate::store::{Allowance, Deadline, LimitStore};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::traces::{Trace, Traces};

/// The name of the spans of calls, as gRPC names its calls.
const SPAN_NAME: &str = "envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";

/// Answers requests of the protocol.
#[derive(Debug)]
pub struct Rls<S> {
    limiter: Limiter<S>,
    responder: Arc<Responder>,
    metrics: Arc<Metrics>,
    /// The longest a store may take.
    allowance: Allowance,
    /// None: no request is traced.
    traces: Option<Arc<Traces>>,
}

/// The answer to a request.
#[derive(Clone, Debug)]
pub struct Answered {
    /// The answer of the protocol, which has no place for times.
    pub response: pb::RateLimitResponse,
    /// The time until the same request would pass; none: it passes, or never does.
    pub retry_after: Option<Duration>,
    /// The wait before an admitted request may go on.
    pub wait: Duration,
    /// The hold that it has made, which is [heard](Issued::heard) once the answer is handed on.
    pub hold: Option<Arc<Issued>>,
}

/// The reason for which a request has no answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Unanswered {
    /// It is invalid.
    #[error(transparent)]
    Invalid(#[from] BadRequest),
    /// Its caller decides.
    #[error("{0}")]
    Unavailable(&'static str),
}

impl From<Unanswered> for Status {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::Invalid(bad) => bad.into(),
            Unanswered::Unavailable(reason) => Self::unavailable(reason),
        }
    }
}

impl<S: LimitStore> Rls<S> {
    /// Decides by `limiter` and gives it `allowance` for its store.
    pub const fn new(
        limiter: Limiter<S>,
        responder: Arc<Responder>,
        metrics: Arc<Metrics>,
        allowance: Allowance,
    ) -> Self {
        Self { limiter, responder, metrics, allowance, traces: None }
    }

    /// The same with spans for the requests that `traces` samples.
    #[must_use]
    pub fn with_traces(self, traces: Option<Arc<Traces>>) -> Self {
        Self { traces, ..self }
    }

    /// Decides.
    pub const fn limiter(&self) -> &Limiter<S> {
        &self.limiter
    }

    /// Explains the decision on `request`, which is not made.
    pub async fn explain(&self, request: pb::RateLimitRequest) -> Result<Explanation, BadRequest> {
        let deadline = Deadline::after(Instant::now(), self.allowance, None);
        Ok(self.limiter.explain(&from_pb(&request)?, deadline).await)
    }

    /// The span of a request to `name` with `headers`, if it is traced.
    pub fn trace(&self, name: &'static str, headers: &HeaderMap) -> Option<Box<Trace>> {
        self.traces.as_ref()?.begin(name, headers)
    }

    /// The answer to `request`, whose caller waits for `patience` at most. The span ends with it.
    pub async fn answer(
        &self,
        request: pb::RateLimitRequest,
        patience: Option<Duration>,
        mut trace: Option<Box<Trace>>,
    ) -> Result<Answered, Unanswered> {
        let started = Instant::now();
        let request = from_pb(&request).inspect_err(|_| self.invalid(trace.as_deref_mut()))?;
        let decision = self.decision(started, &request, patience, trace.as_deref_mut()).await?;
        let response = self.responder.respond(&request, &decision);
        let (retry_after, wait) = (decision.retry_after(), decision.wait());
        Ok(Answered { response, retry_after, wait, hold: decision.into_inner().hold })
    }

    /// The decision on `request`, which arrived at `started`; none: its caller decides.
    async fn decision(
        &self,
        started: Instant,
        request: &Request<'_>,
        patience: Option<Duration>,
        trace: Option<&mut Trace>,
    ) -> Result<Decision, Unanswered> {
        let deadline = Deadline::after(started, self.allowance, patience);
        let decision = self.limiter.decide_traced(request, deadline, trace).await;
        let (outcome, took) = (decision.answered(), started.elapsed());
        self.metrics.decision_durations.observe(outcome, decision.asked, took);
        match decision.unavailable {
            Some(reason) => Err(Unanswered::Unavailable(reason)),
            None => Ok(decision),
        }
    }

    /// Counts a request that is invalid.
    fn invalid(&self, trace: Option<&mut Trace>) {
        self.metrics.requests.invalid.inc();
        if let Some(trace) = trace {
            trace.fail("invalid argument");
        }
    }

    /// The frame of the answer to `request`, which arrived at `started`, and its hold.
    async fn frame(
        &self,
        started: Instant,
        request: &Request<'_>,
        patience: Option<Duration>,
        mut trace: Option<Box<Trace>>,
    ) -> Result<(Bytes, Decision), Unanswered> {
        if let Err(bad) = check(request) {
            self.invalid(trace.as_deref_mut());
            return Err(bad.into());
        }
        let decision = self.decision(started, request, patience, trace.as_deref_mut()).await?;
        Ok((self.responder.frame(request, &decision), decision))
    }

    /// The frame of the answer to `message`, which arrived at `now`, of a caller that may ask about
    /// every domain.
    pub async fn answer_message(&self, message: &[u8], now: Instant) -> Result<Bytes, Status> {
        let mut tree = None;
        let request =
            decode::request(message, &mut tree).map_err(|error| invalid_message(&error))?;
        let (frame, decision) = self.frame(now, &request, None, None).await?;
        decision.into_inner().statuses.keep();
        Ok(frame)
    }
}

impl<S: LimitStore> Rls<S> {
    /// The head of a call with `headers`, of which `terms` are read.
    pub(super) fn head(&self, terms: Terms, headers: &HeaderMap) -> Head {
        Head::new(terms, self.trace(SPAN_NAME, headers))
    }

    /// The answer to a gRPC call, whose message may have `longest` bytes and take `patient` to
    /// arrive. Its caller may ask about the domains of `askable`, `None`: about all, and has
    /// `memory` for what is not small.
    pub(super) async fn call(
        &self,
        mut head: Head,
        body: Incoming,
        (longest, patient): (usize, Duration),
        askable: Option<&Askable>,
        memory: &Memory,
    ) -> Response<Reply> {
        if let Err(status) = head.readable() {
            return unary::refusal(status);
        }
        let arrived = unary::message_in_time(body, longest, patient, memory).await;
        let answered = match arrived {
            Ok(Arrived { message, held: _held }) => {
                self.decide(head, &message, Instant::now(), askable, memory).await
            }
            Err(InvalidMessage::TooLarge) => self.too_large(head, memory),
            Err(InvalidMessage::Refused(status)) => Err(head.refuse("no message", status)),
        };
        answered.map_or_else(unary::refusal, unary::response)
    }

    /// The answer to the `message` of a call, which arrived at `now`.
    ///
    /// The call is [readable](Head::readable), and the message whole, without a prefix.
    pub(super) async fn decide(
        &self,
        mut head: Head,
        message: &[u8],
        now: Instant,
        askable: Option<&Askable>,
        memory: &Memory,
    ) -> Result<Framed, Status> {
        let mut tree = None;
        let request = match decode::request(message, &mut tree) {
            Ok(request) => request,
            Err(error) => return Err(head.refuse("invalid message", invalid_message(&error))),
        };
        if let Err(status) = self.permit(askable, request.domain) {
            return Err(head.refuse("permission denied", status));
        }
        let answered = self.frame(now, &request, head.terms.patience, head.trace).await;
        if let Some(reference) = self.metrics.reference() {
            reference.response_time.observe(now.elapsed());
        }
        let (frame, decision) = answered?;
        let Decided { verdict, hold, statuses, .. } = decision.into_inner();
        statuses.keep();
        held(frame, verdict, hold, memory)
    }

    /// The answer to a call whose message is larger than its bound: over its limit, not an error,
    /// as Envoy would let the request pass on an error.
    pub(super) fn too_large(&self, mut head: Head, memory: &Memory) -> Result<Framed, Status> {
        head.fail("out of bounds");
        let verdict = self.limiter.shared().decide_unread();
        held(encode::bare(verdict), verdict, None, memory)
    }

    /// Refuses a caller that may not ask about `domain`.
    pub(super) fn permit(&self, askable: Option<&Askable>, domain: &[u8]) -> Result<(), Status> {
        if askable.is_some_and(|askable| !askable.has(domain)) {
            self.metrics.requests.forbidden.inc();
            return Err(Status::permission_denied(FORBIDDEN));
        }
        Ok(())
    }

    /// The answer to a request that is too large to be read.
    pub fn unread(&self) -> pb::RateLimitResponse {
        unread(self.limiter.shared().decide_unread())
    }
}

/// The answer with `frame`, which tells of `hold`. Where there is no memory for its details, it has
/// the code alone, and no handle: a denial must not become an error, which Envoy would let pass.
fn held(
    frame: Bytes,
    verdict: Verdict,
    hold: Option<Arc<Issued>>,
    memory: &Memory,
) -> Result<Framed, Status> {
    if let Ok(frame) = memory.answer(frame) {
        return Ok(Framed { frame, hold });
    }
    let frame = memory.answer(encode::bare(verdict)).map_err(unary::exhausted)?;
    Ok(Framed { frame, hold: None })
}

fn invalid_message(error: &DecodeError) -> Status {
    Status::internal(error.to_string())
}
