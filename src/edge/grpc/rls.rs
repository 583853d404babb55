//! `envoy.service.ratelimit.v3.RateLimitService`, for gRPC and for `/json`.
//!
//! A denied request is an answer, never a gRPC error: Envoy lets a request pass on any error. A
//! call fails only if it is invalid, or if its limits leave it to the caller.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response};
use hyper::body::Incoming;
use prost::Message as _;
use tokio::time::Instant;
use tonic::Status;

use super::callers::{Askable, FORBIDDEN};
use super::convert::{BadRequest, from_pb};
use super::response::{Responder, unread};
use super::unary::{self, Arrived, Framed, InvalidMessage, Reply};
use crate::edge::listener::memory::Memory;
use crate::edge::pb;
use crate::limiter::Limiter;
use crate::limiter::explain::Explanation;
use crate::limiter::holds::Issued;
use crate::store::{Allowance, Deadline, LimitStore};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::traces::{Trace, Traces};

/// The most digits of `grpc-timeout`.
const MAX_TIMEOUT_DIGITS: usize = 8;

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
        Ok(self.limiter.explain(&from_pb(request)?, deadline).await)
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
        trace: Option<Box<Trace>>,
    ) -> Result<Answered, Unanswered> {
        self.answer_at(Instant::now(), request, patience, trace).await
    }

    /// The answer to `request`, which arrived at `started`.
    async fn answer_at(
        &self,
        started: Instant,
        request: pb::RateLimitRequest,
        patience: Option<Duration>,
        mut trace: Option<Box<Trace>>,
    ) -> Result<Answered, Unanswered> {
        let request = from_pb(request).inspect_err(|_| {
            self.metrics.requests.invalid.inc();
            if let Some(trace) = &mut trace {
                trace.fail("invalid argument");
            }
        })?;
        let deadline = Deadline::after(started, self.allowance, patience);
        let decision = self.limiter.decide_traced(&request, deadline, trace.as_deref_mut()).await;
        let (outcome, took) = (decision.answered(), started.elapsed());
        self.metrics.decision_durations.observe(outcome, decision.asked, took);
        if let Some(reason) = decision.unavailable {
            return Err(Unanswered::Unavailable(reason));
        }
        let response = self.responder.respond(&request, &decision);
        let retry_after = decision.retry_after();
        let wait = decision.wait();
        Ok(Answered { response, retry_after, wait, hold: decision.hold })
    }
}

/// The parts of a call's head that count.
#[derive(Debug)]
pub(super) struct Head {
    /// The longest that the caller waits.
    patience: Option<Duration>,
    /// The message is compressed, which is refused.
    compressed: bool,
    /// The span of the call, if it is traced.
    trace: Option<Box<Trace>>,
}

impl Head {
    /// Refuses a call whose message cannot be read, whatever it is.
    pub(super) fn readable(&mut self) -> Result<(), Status> {
        if self.compressed { Err(self.refuse("compressed", unary::compressed())) } else { Ok(()) }
    }

    /// The refusal of the call with `status`.
    pub(super) fn refuse(&mut self, reason: &'static str, status: Status) -> Status {
        self.fail(reason);
        status
    }

    /// Marks the span of a call without a decision.
    fn fail(&mut self, reason: &'static str) {
        if let Some(trace) = &mut self.trace {
            trace.fail(reason);
        }
    }
}

impl<S: LimitStore> Rls<S> {
    /// The head of a call with `headers`.
    pub(super) fn head(&self, headers: &HeaderMap) -> Head {
        Head {
            patience: patience(headers),
            compressed: unary::is_compressed(headers),
            trace: self.trace(SPAN_NAME, headers),
        }
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
                self.decide(head, message, Instant::now(), askable, memory).await
            }
            Err(InvalidMessage::TooLarge) => self.too_large(head, memory),
            Err(InvalidMessage::Refused(status)) => Err(head.refuse("no message", status)),
        };
        answered.map_or_else(unary::refusal, unary::response)
    }

    /// The answer to the `message` of a call, which arrived at `now`.
    ///
    /// The message is whole and has no prefix; what it takes of `memory` is its caller's to hold.
    pub(super) async fn decide(
        &self,
        mut head: Head,
        message: Bytes,
        now: Instant,
        askable: Option<&Askable>,
        memory: &Memory,
    ) -> Result<Framed, Status> {
        head.readable()?;
        let request = match pb::RateLimitRequest::decode(message) {
            Ok(request) => request,
            Err(error) => {
                return Err(head.refuse("invalid message", Status::internal(error.to_string())));
            }
        };
        if let Err(status) = self.permit(askable, &request.domain) {
            return Err(head.refuse("permission denied", status));
        }
        let answered = self.answer_at(now, request, head.patience, head.trace).await;
        if let Some(reference) = self.metrics.reference() {
            reference.response_time.observe(now.elapsed());
        }
        let answered = answered?;
        framed(&answered.response, answered.hold, memory)
    }

    /// The answer to a call whose message is larger than its bound: over its limit, not an error,
    /// as Envoy would let the request pass on an error.
    pub(super) fn too_large(&self, mut head: Head, memory: &Memory) -> Result<Framed, Status> {
        head.fail("out of bounds");
        framed(&self.unread(), None, memory)
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

/// The frame of `answer`, which tells of `hold`. Where there is no memory for its details, it has
/// the code alone, and no handle: a denial must not become an error, which Envoy would let pass.
fn framed(
    answer: &pb::RateLimitResponse,
    hold: Option<Arc<Issued>>,
    memory: &Memory,
) -> Result<Framed, Status> {
    if let Ok(frame) = memory.answer(unary::frame(answer)) {
        return Ok(Framed { frame, hold });
    }
    let code = answer.overall_code;
    let bare = pb::RateLimitResponse { overall_code: code, ..Default::default() };
    let frame = memory.answer(unary::frame(&bare)).map_err(unary::exhausted)?;
    Ok(Framed { frame, hold: None })
}

/// The time of the store for a caller that sent `grpc-timeout`: four fifths, as the answer must
/// travel, too.
///
/// Source: the gRPC over HTTP/2 specification: at most 8 digits and a unit. A value of more digits
/// counts as none: the time after it may be beyond any clock.
pub fn patience(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > MAX_TIMEOUT_DIGITS || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    let timeout = match unit {
        "H" => Duration::from_secs(value * 3_600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    };
    Some(timeout / 5 * 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_fifths_of_the_callers_timeout_are_for_the_store() {
        let table = [
            ("20m", Some(16_000)),
            ("50000u", Some(40_000)),
            ("1S", Some(800_000)),
            ("1M", Some(48_000_000)),
            ("", None),
            ("5", None),
            ("x5m", None),
            ("5µ", None),
            ("+5m", None),
            ("99999999H", Some(287_999_997_120_000_000)),
            ("100000000m", None),
            ("18446744073709551615H", None),
        ];
        for (text, micros) in table {
            let mut headers = HeaderMap::new();
            if let Ok(value) = text.parse() {
                headers.insert("grpc-timeout", value);
            }
            let patience = patience(&headers);
            assert_eq!(patience, micros.map(Duration::from_micros), "{text}");
            // No time of a caller is beyond the clock.
            let start = Instant::now();
            assert!(Deadline::after(start, Duration::from_secs(1), patience).due() >= start);
        }
    }
}
