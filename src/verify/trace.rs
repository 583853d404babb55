//! The calls of one counter, as their callers saw them.

use std::time::Duration;

use crate::domain::Timestamp;

/// The latest time: 2^60 microseconds. Later ones count as this, so that sums do not overflow.
pub(super) const MAX_TIME_US: u64 = 1 << 60;

/// The most hits of a call: more than any limit admits at once. More count as this.
pub(super) const MAX_HITS: u64 = 1 << 43;

/// One call, by the clock of its caller. The decision lies between the two times, ends included.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Call {
    /// The time before it was sent, in microseconds.
    pub(super) sent: i64,
    /// The time after its answer came, in microseconds.
    pub(super) received: i64,
    /// The hits that it asked for.
    pub(super) hits: u64,
}

impl Call {
    /// A call that was sent and answered at these times. An answer before the call counts as
    /// simultaneous.
    pub fn new(sent: Timestamp, received: Timestamp, hits: u64) -> Self {
        let micros = |time: Timestamp| time.as_micros().min(MAX_TIME_US).cast_signed();
        let sent = micros(sent);
        Self { sent, received: micros(received).max(sent), hits: hits.min(MAX_HITS) }
    }

    /// The same call by a clock that may be off by `error`.
    #[must_use]
    pub fn widened(self, error: Duration) -> Self {
        let error = u64::try_from(error.as_micros()).unwrap_or(u64::MAX).min(MAX_TIME_US);
        let error = error.cast_signed();
        Self { sent: self.sent - error, received: self.received + error, ..self }
    }

    /// The middle of the span in which it was decided.
    pub(super) const fn middle(&self) -> i64 {
        self.sent + (self.received - self.sent) / 2
    }
}

/// The calls of one counter, in any order. Calls without an answer are not part of it: their hits
/// may be charged, but nothing was admitted.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    pub(super) admitted: Vec<Call>,
    pub(super) refused: Vec<Call>,
    /// Calls that gave hits back.
    pub(super) refunded: Vec<Call>,
    /// Calls that were admitted with an estimate, which was settled.
    pub(super) held: Vec<Held>,
}

/// An estimate that was admitted, and its settlement.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    /// The call that was admitted; its hits are the estimate.
    pub(super) call: Call,
    /// The call that settled it; its hits are the cost.
    pub(super) settled: Call,
}

impl Held {
    /// The hits that count from the admission on: the cost, up to the estimate. What a request
    /// costs beyond its estimate is no part of the promise.
    fn kept(&self) -> u64 {
        self.call.hits.min(self.settled.hits)
    }
}

impl Trace {
    /// Adds a call that was admitted.
    pub fn admit(&mut self, sent: Timestamp, received: Timestamp, hits: u64) {
        self.admitted.push(Call::new(sent, received, hits));
    }

    /// Adds a call that was refused.
    pub fn refuse(&mut self, sent: Timestamp, received: Timestamp, hits: u64) {
        self.refused.push(Call::new(sent, received, hits));
    }

    /// Adds a call that gave hits back.
    pub fn refund(&mut self, sent: Timestamp, received: Timestamp, hits: u64) {
        self.refunded.push(Call::new(sent, received, hits));
    }

    /// Adds a call that was admitted with an estimate, and settled by its cost in a call that was
    /// sent and answered at these times.
    pub fn settle(
        &mut self,
        (sent, received): (Timestamp, Timestamp),
        estimate: u64,
        (settled_sent, settled_received): (Timestamp, Timestamp),
        cost: u64,
    ) {
        let call = Call::new(sent, received, estimate);
        let settled = Call::new(settled_sent, settled_received, cost);
        self.held.push(Held { call, settled });
    }

    /// The hits that were admitted and given back, where a cost counts from its admission on: in
    /// windows.
    pub(super) fn by_cost(&self) -> (Vec<Call>, Vec<Call>) {
        let costs = self.held.iter().map(|held| Call { hits: held.kept(), ..held.call });
        (self.admitted.iter().copied().chain(costs).collect(), self.refunded.clone())
    }

    /// The same where an estimate counts until its settlement gives the rest back: in buckets.
    pub(super) fn by_estimate(&self) -> (Vec<Call>, Vec<Call>) {
        let estimates = self.held.iter().map(|held| held.call);
        let back = self.held.iter().map(|held| {
            let hits = held.call.hits - held.kept();
            Call { hits, ..held.settled }
        });
        let admitted = self.admitted.iter().copied().chain(estimates).collect();
        (admitted, self.refunded.iter().copied().chain(back).collect())
    }

    /// Adds the calls of another caller of the same counter.
    pub fn merge(&mut self, other: &Self) {
        self.admitted.extend_from_slice(&other.admitted);
        self.refused.extend_from_slice(&other.refused);
        self.refunded.extend_from_slice(&other.refunded);
        self.held.extend_from_slice(&other.held);
    }

    /// The number of calls that were admitted.
    pub fn admitted(&self) -> usize {
        self.admitted.len() + self.held.len()
    }

    /// The number of calls that were refused.
    pub fn refused(&self) -> usize {
        self.refused.len()
    }
}
