//! Redis is late, away, or back: the events of the breaker, and the charges that it is told then.

use std::sync::atomic::Ordering;

use futures_util::FutureExt as _;
use tokio::time::Instant;

use super::Batcher;
use crate::redis::wire::Wire;
use crate::store::StoreError;
use crate::store::redis::breaker::{Breaker, BreakerState};
use crate::store::redis::pipeline::{Pipeline, code};
use crate::store::redis::telling::Due;

/// The errors with which Redis has executed nothing of a script that writes: it says so before the
/// first write.
const NOTHING_DONE: [&str; 9] = [
    "READONLY",
    "OOM",
    "LOADING",
    "BUSY",
    "MASTERDOWN",
    "NOREPLICAS",
    "MISCONF",
    "NOPERM",
    "NOAUTH",
];

impl Batcher {
    /// The connection is lost, or could not be made.
    pub(super) fn lost(&mut self, reason: &str) {
        let before = self.breaker.state();
        self.telling.lost();
        self.end_patience();
        if let Some(node) = &self.node {
            node.is_lost();
        }
        self.breaker.lost();
        self.follow(before, reason);
        // It may have been down before: this is the newest reason.
        self.health.set_down(reason);
        self.notices.failed(&self.connector, reason);
    }

    /// Makes known what the breaker has become since it was `before`, for `reason`.
    fn follow(&mut self, before: BreakerState, reason: &str) {
        let state = self.breaker.state();
        if state == before {
            return;
        }
        self.health.set_breaker(state);
        if state == BreakerState::Telling {
            self.telling.begin(Instant::now());
            self.set_alarm(self.telling.alarm());
        }
        let untold = state == BreakerState::Telling && self.telling.recovery().untold() > 0;
        if untold || matches!(state, BreakerState::Closed | BreakerState::Held) {
            self.end_patience();
        }
        if state == BreakerState::Closed {
            self.health.set_up();
            self.notices.closed(&self.connector);
        } else if before == BreakerState::Closed {
            self.health.set_down(reason);
            self.notices.opened(&self.connector, reason);
            self.calls.refuse(&self.refusal());
        }
    }

    /// Moves the breaker by `event`, which returns true if a probe is wanted, and sends that. The
    /// breaker may open for `reason`.
    pub(super) fn step(
        &mut self,
        pipeline: &mut Pipeline<'_>,
        wire: &mut Wire,
        reason: &str,
        event: impl FnOnce(&mut Breaker, usize, Instant) -> bool,
    ) {
        let (before, now) = (self.breaker.state(), Instant::now());
        if event(&mut self.breaker, pipeline.commands(), now) {
            pipeline.probe(&mut wire.output, self.due(now));
        }
        self.set_alarm(self.breaker.alarm());
        self.follow(before, reason);
    }

    /// Gives up what is late, after what has arrived was read.
    ///
    /// # Errors
    /// Fails if Redis exceeds the response timeout, or the connection is lost.
    pub(super) async fn look_late(
        &mut self,
        pipeline: &mut Pipeline<'_>,
        wire: &mut Wire,
    ) -> Result<(), String> {
        // The runtime looks at its sockets before it goes on. After a stall of this process, the
        // replies may be there and not yet noticed.
        tokio::task::yield_now().await;
        while let Some(read) = wire.exchange().now_or_never() {
            read.map_err(|error| error.to_string())?;
            self.receive(pipeline, wire)?;
        }
        let now = Instant::now();
        let expired = pipeline.expire(now);
        if expired.broken {
            pipeline.fail(&StoreError::Timeout);
            return Err(format!("Redis gave no answer for {:?}", self.response_timeout));
        }
        let queued = self.calls.expire(now);
        let late = expired.waits.late + queued.late;
        let extended = expired.waits.extended + queued.extended;
        self.counts.extended.fetch_add(extended.into(), Ordering::Relaxed);
        if expired.overdue {
            let reason = format!("Redis gave no answer for {:?}", self.allowance.time);
            self.step(pipeline, wire, &reason, |breaker, _, now| {
                breaker.overdue(now);
                false
            });
        }
        if late > 0 {
            let reason =
                format!("Redis is slow: a fifth of its answers take {:?}", self.allowance.time);
            self.step(pipeline, wire, &reason, |breaker, in_flight, now| {
                breaker.late(late, in_flight, now);
                false
            });
        }
        self.step(pipeline, wire, "", Breaker::tick);
        self.tell(pipeline, wire, now);
        let own = [self.breaker.alarm(), self.telling.alarm(), self.patient_until];
        for alarm in own.into_iter().chain([pipeline.alarm(self.breaker.is_closed())]) {
            self.set_alarm(alarm);
        }
        Ok(())
    }

    pub(super) fn plan_telling(&mut self) {
        self.telling.plan(Instant::now());
        self.set_alarm(self.telling.alarm());
    }

    /// Tells Redis some of what it does not know, if it is time.
    fn tell(&mut self, pipeline: &mut Pipeline<'_>, wire: &mut Wire, now: Instant) {
        let fit = matches!(self.breaker.state(), BreakerState::Telling | BreakerState::Closed);
        let due = now + self.response_timeout;
        match self.telling.due(now, fit) {
            Due::Nothing => {}
            // Hits that are left belong to other nodes.
            Due::Settled => self.step(pipeline, wire, "", |breaker, _, now| {
                breaker.settled(now);
                false
            }),
            Due::Calls(calls) => {
                for amendments in calls {
                    pipeline.amend(amendments, true, &mut wire.output, due);
                }
            }
        }
    }

    /// Redis has answered what it was told.
    ///
    /// # Errors
    /// Fails if the server is no primary: its name may lead to another one.
    pub(super) fn told(&mut self, applied: &Result<Vec<u64>, StoreError>) -> Result<(), String> {
        let now = Instant::now();
        let refused = match applied {
            Err(StoreError::Rejected(text)) if NOTHING_DONE.contains(&code(text)) => Some(text),
            _ => None,
        };
        match (applied, refused) {
            (_, Some(_)) => self.telling.refused(now),
            (applied, None) => self.telling.answered(applied.as_deref().ok(), now),
        }
        if let Err(error) = applied {
            self.notices.untold(&self.connector, error, refused.is_some());
        }
        self.set_alarm(self.telling.alarm());
        match refused {
            Some(text) if code(text) == "READONLY" => Err(text.clone()),
            _ => Ok(()),
        }
    }
}
