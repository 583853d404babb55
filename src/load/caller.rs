//! The callers of one connection: they make calls that are due, in a closed loop or at a fixed
//! rate, and count the answers.

use std::collections::VecDeque;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use prost::Message as _;
use tollgate::domain::Timestamp;
use tollgate::edge::pb::RateLimitResponse;
use tollgate::edge::pb::rate_limit_response::Code;

use super::client::{End, Fault, Line, Target};
use super::drive::{histogram, micros};
use super::plan::Plan;
use super::record::Recorder;

/// The time between two attempts to connect.
const BACK_OFF: Duration = Duration::from_millis(100);

/// The counts of all threads.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) answered: AtomicU64,
    pub(super) over_limit: AtomicU64,
    pub(super) errors: AtomicU64,
    pub(super) missed: AtomicU64,
    /// The reason of the first error.
    pub(super) fault: OnceLock<Fault>,
}

/// The terms of a run.
#[derive(Clone, Copy)]
pub(super) struct Terms<'a> {
    pub(super) target: &'a Target,
    pub(super) plan: &'a Plan,
    pub(super) in_flight: usize,
    /// The time between two calls of a connection; `None` for a closed loop.
    pub(super) gap: Option<Duration>,
    pub(super) end: Instant,
    pub(super) tally: &'a Tally,
}

/// A call in flight.
pub(super) struct Asked {
    due: Instant,
    /// The values and the time, for the record.
    recorded: Option<(Box<[usize]>, Timestamp)>,
}

/// Runs the calls of `line` until the end, and until all calls are answered. A connection that is
/// lost is replaced.
pub(super) async fn run(
    line: &mut Option<Line<Asked>>,
    terms: &Terms<'_>,
    recorder: Option<&Recorder<'_>>,
) -> Histogram<u64> {
    let mut callers = Callers::new(terms, recorder);
    while callers.come_due() {
        let Some(open) = line else {
            match Line::connect(terms.target, terms.in_flight).await {
                Ok(connected) => *line = Some(connected),
                Err(fault) => {
                    callers.fail_waiting(&fault);
                    tokio::time::sleep(BACK_OFF).await;
                }
            }
            continue;
        };
        callers.call(open);
        let due = callers.next_due();
        let mut ended = |asked: Asked, end: End<'_>| callers.take(&asked, end);
        let turned = match due {
            None => open.turn(&mut ended).await,
            Some(due) => tokio::select! {
                turned = open.turn(&mut ended) => turned,
                () = tokio::time::sleep_until(due.into()) => Ok(()),
            },
        };
        if let Err(fault) = turned {
            open.session().fail(&fault, &mut ended);
            *line = None;
        } else if open.session().is_over() {
            *line = None;
        }
        callers.settle();
    }
    callers.latency
}

/// The state of a run on one connection.
struct Callers<'a> {
    terms: Terms<'a>,
    recorder: Option<&'a Recorder<'a>>,
    /// The due times of calls that are not sent yet.
    waiting: VecDeque<Instant>,
    /// Calls that are due or sent, and not answered.
    outstanding: usize,
    /// The due time of the next call, of a fixed rate.
    next: Option<Instant>,
    random: fastrand::Rng,
    /// The values of the present call.
    values: Vec<usize>,
    latency: Histogram<u64>,
    counts: Counts,
    /// The time at which the answers of this turn came.
    now: Option<Instant>,
}

/// The counts of one turn.
#[derive(Default)]
struct Counts {
    answered: u64,
    over_limit: u64,
    errors: u64,
}

/// The field of a response that every run needs.
#[derive(prost::Message)]
struct Verdict {
    #[prost(enumeration = "Code", tag = "1")]
    overall_code: i32,
}

impl<'a> Callers<'a> {
    fn new(terms: &Terms<'a>, recorder: Option<&'a Recorder<'a>>) -> Self {
        let now = Instant::now();
        let first = if terms.gap.is_none() { terms.in_flight } else { 0 };
        Self {
            terms: *terms,
            recorder,
            waiting: std::iter::repeat_n(now, first).collect(),
            outstanding: first,
            next: terms.gap.is_some().then_some(now),
            random: fastrand::Rng::new(),
            values: Vec::new(),
            latency: histogram(),
            counts: Counts::default(),
            now: None,
        }
    }

    /// Notes the calls that are due by now. False: there is nothing to do any more.
    fn come_due(&mut self) -> bool {
        if let (Some(next), Some(gap)) = (&mut self.next, self.terms.gap) {
            let now = Instant::now().min(self.terms.end);
            while *next < now {
                if self.outstanding < self.terms.in_flight {
                    self.waiting.push_back(*next);
                    self.outstanding += 1;
                } else {
                    self.terms.tally.missed.fetch_add(1, Ordering::Relaxed);
                }
                *next += gap;
            }
        }
        self.outstanding > 0 || self.next_due().is_some()
    }

    /// The due time of the next call of a fixed rate; none: after the end, or at once in a closed
    /// loop.
    fn next_due(&self) -> Option<Instant> {
        self.next.filter(|next| *next < self.terms.end)
    }

    /// Sends the calls that wait, as many as the connection takes.
    fn call(&mut self, line: &mut Line<Asked>) {
        let session = line.session();
        while !session.is_full()
            && let Some(due) = self.waiting.pop_front()
        {
            self.terms.plan.draw(&mut self.random, &mut self.values);
            let recorded =
                self.recorder.map(|recorder| (self.values.clone().into(), recorder.now()));
            let asked = Asked { due, recorded };
            session.call(asked, |out| self.terms.plan.write(&self.values, out));
        }
    }

    /// Takes the end of a call. A call without an answer is not recorded: its hits may be charged,
    /// but nothing was admitted.
    fn take(&mut self, asked: &Asked, end: End<'_>) {
        let now = *self.now.get_or_insert_with(Instant::now);
        let code = match end {
            End::Unprocessed => return self.waiting.push_back(asked.due),
            End::Answered(message) => self.code(asked, message),
            End::Failed(fault) => Err(fault),
        };
        match code {
            Ok(code) => {
                self.counts.answered += 1;
                self.counts.over_limit += u64::from(code == Code::OverLimit);
            }
            Err(fault) => self.note(fault),
        }
        self.finish(asked.due, now);
    }

    /// The code of an answer, which is recorded.
    fn code(&self, asked: &Asked, message: &[u8]) -> Result<Code, Fault> {
        let damaged = |_| Fault::Answer("it is no RateLimitResponse");
        if let (Some(recorder), Some((values, sent))) = (self.recorder, &asked.recorded) {
            let response = RateLimitResponse::decode(message).map_err(damaged)?;
            recorder.add(values, *sent, &response);
            return Ok(response.overall_code());
        }
        Ok(Verdict::decode(message).map_err(damaged)?.overall_code())
    }

    /// Counts an error.
    fn note(&mut self, fault: Fault) {
        self.counts.errors += 1;
        // Only the first is told.
        let _ = self.terms.tally.fault.set(fault);
    }

    /// Ends a call; in a closed loop the next is due.
    fn finish(&mut self, due: Instant, now: Instant) {
        self.latency.saturating_record(micros(now.saturating_duration_since(due)));
        if self.next.is_none() && now < self.terms.end {
            self.waiting.push_back(now);
        } else {
            self.outstanding -= 1;
        }
    }

    /// Fails the calls that wait, because there is no connection.
    fn fail_waiting(&mut self, fault: &Fault) {
        let now = Instant::now();
        for _ in 0..self.waiting.len() {
            if let Some(due) = self.waiting.pop_front() {
                self.note(fault.clone());
                self.finish(due, now);
            }
        }
        self.settle();
    }

    /// Ends a turn: adds its counts to those of all threads.
    fn settle(&mut self) {
        let Counts { answered, over_limit, errors } = std::mem::take(&mut self.counts);
        let Tally { answered: all, over_limit: over, errors: failed, .. } = self.terms.tally;
        for (all, count) in [(all, answered), (over, over_limit), (failed, errors)] {
            if count > 0 {
                all.fetch_add(count, Ordering::Relaxed);
            }
        }
        self.now = None;
    }
}
