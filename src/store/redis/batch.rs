//! Group commit: groups that arrive while a call of the script is in flight form the next call.
//!
//! One task owns the connection, drives its socket, forms frames and distributes replies. A frame
//! is never delayed to become fuller. Nothing is sent twice, except after NOSCRIPT, which proves
//! that the server has not run it. While the breaker is open every call fails at once.
//!
//! In a cluster a frame has calls of one slot. There are as many frames in flight as the claims in
//! flight allow, and all that are ready are written at once.
//!
//! `outage`: what the task does when Redis is late, away, or back.

mod outage;

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep_until};

use super::breaker::{Breaker, BreakerState};
use super::health::{Counts, Health, TASK_ENDED};
use super::node::Node;
use super::notices::Notices;
use super::pipeline::{Command, Completed, Pipeline, code};
use super::queue::Queue;
use super::script::{MAX_AMENDMENTS, Script};
use super::telling::Telling;
use crate::redis::Connector;
use crate::redis::backoff::Backoff;
use crate::redis::wire::Wire;
use crate::store::{Allowance, Deadline, StoreError};
use crate::telemetry::metrics::CallMetrics;

/// The task behind a store. It ends when the store is dropped.
pub(super) struct Batcher {
    pub(super) connector: Connector,
    pub(super) calls: Queue,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) health: Arc<Health>,
    pub(super) counts: Arc<Counts>,
    /// The node of a cluster that it connects to.
    pub(super) node: Option<Node>,
    /// Until then calls wait for the first attempt to connect, unless it has ended.
    pub(super) patient_until: Option<Instant>,
    pub(super) breaker: Breaker,
    pub(super) telling: Telling,
    pub(super) window: Window,
    /// Maximum number of claims in a frame of several groups. Frames of more than 64 are not
    /// cheaper per claim, and block Redis longer.
    pub(super) frame_limits: usize,
    /// The time after which a frame is overdue.
    pub(super) allowance: Allowance,
    pub(super) response_timeout: Duration,
    pub(super) notices: Notices,
    pub(super) calls_seen: CallMetrics,
}

/// The most that is in flight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) frames: usize,
    pub(super) claims: usize,
}

/// The reason why [`Batcher::serve`] returned.
enum ServeEnd {
    /// The connection is lost, for this reason.
    Lost(String),
    /// The store was dropped.
    Dropped,
}

impl Drop for Batcher {
    /// Marks the store as down and rejects further calls.
    fn drop(&mut self) {
        let state = self.breaker.state();
        if state != BreakerState::Closed {
            self.notices.leave();
        }
        self.health.set_down(TASK_ENDED);
        self.health.set_breaker(BreakerState::Down);
        self.calls.close();
    }
}

/// Runs `work`. Returns the text of its panic if it panics.
async fn panic_of(work: impl Future<Output = ()>) -> Result<(), String> {
    AssertUnwindSafe(work).catch_unwind().await.map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
    })
}

impl Batcher {
    /// Serves until the store is dropped. After a panic, which is a bug in tollgate, it continues
    /// with a new connection; the calls in flight fail.
    pub(super) async fn run(mut self) {
        while let Err(fault) = panic_of(self.run_once()).await {
            tracing::error!(fault, "the task of a Redis connection panicked and is started again");
            self.lost("the connection task panicked");
        }
    }

    async fn run_once(&mut self) {
        let script = Script::with_server_time();
        let mut backoff = Backoff::new();
        loop {
            let connector = self.connector.clone();
            let Some(attempt) = self.refusing(connector.connect_with(script.text())).await else {
                return;
            };
            let reason = match attempt {
                Ok(wire) => {
                    let since = Instant::now();
                    let ServeEnd::Lost(reason) = self.serve(wire, &script).await else { return };
                    // Reset only after a stable connection: a server that closes each new
                    // connection at once must not be flooded with attempts.
                    if since.elapsed() >= Backoff::MAX {
                        backoff.reset();
                    }
                    reason
                }
                Err(reason) => reason,
            };
            self.lost(&reason);
            if self.refusing(tokio::time::sleep(backoff.wait())).await.is_none() {
                return;
            }
        }
    }

    /// The error of a call that is refused.
    fn refusal(&self) -> StoreError {
        StoreError::Unavailable(self.health.down().unwrap_or_default())
    }

    /// Runs `work` and refuses every call meanwhile, unless it is the first attempt and calls wait
    /// for it. Returns `None` if the store is dropped.
    async fn refusing<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::pin!(work);
        loop {
            let (refusal, waits, alarm) = (self.refusal(), self.waits(), self.calls.alarm());
            let end = self.patient_until.into_iter().chain(alarm).min();
            let end = sleep_until(end.unwrap_or_else(Instant::now));
            tokio::select! {
                done = &mut work => return Some(done),
                () = self.calls.changed(!waits, alarm) => {
                    if !waits {
                        self.calls.refuse(&refusal);
                    }
                }
                () = end, if waits => {
                    self.calls.expire(Instant::now());
                }
                command = self.commands.recv() => {
                    match command? {
                        Command::Forget(forget) => {
                            drop(forget.answer.send(Err(refusal.into())));
                        }
                        Command::Settle(settle) => {
                            drop(settle.answer.send(Err(refusal.into())));
                        }
                        Command::Amend { .. } => {}
                    }
                }
            }
        }
    }

    /// True while calls wait for the first attempt to connect.
    fn waits(&mut self) -> bool {
        if self.patient_until.is_some_and(|until| until <= Instant::now()) {
            self.end_patience();
        }
        self.patient_until.is_some()
    }

    fn end_patience(&mut self) {
        self.patient_until = None;
        self.health.patient.store(false, Ordering::Relaxed);
    }

    /// Sends frames until the connection is lost.
    async fn serve(&mut self, wire: Wire, script: &Script) -> ServeEnd {
        let amend = Script::amend_with_server_time();
        let connection = self.health.connections.fetch_add(1, Ordering::Relaxed) + 1;
        let node = self.node.as_ref().map(|node| node.address.clone());
        let mut pipeline = Pipeline::new(script, &amend, connection, node.as_ref());
        let served = self.serve_pipeline(wire, connection, &mut pipeline).await;
        let left = pipeline.frames() as u64;
        self.counts.ended.fetch_add(left, Ordering::Release);
        if let ServeEnd::Lost(reason) = &served {
            pipeline.fail(&StoreError::Unavailable(reason.clone()));
        }
        served
    }

    async fn serve_pipeline(
        &mut self,
        mut wire: Wire,
        connection: u64,
        pipeline: &mut Pipeline<'_>,
    ) -> ServeEnd {
        let recovery = Arc::clone(self.telling.recovery());
        self.step(pipeline, &mut wire, "", |breaker, _, now| {
            breaker.connected(now);
            true
        });
        let (mut alarm, mut dropped) = (None, false);
        let sleep = sleep_until(Instant::now());
        tokio::pin!(sleep);
        loop {
            self.log_in_again(pipeline, &mut wire);
            // Before calls, because some give hits back that calls may need.
            self.send_commands(None, connection, pipeline, &mut wire);
            self.send_waiting(pipeline, &mut wire);
            if dropped && pipeline.commands() == 0 && self.calls.is_empty() {
                return ServeEnd::Dropped;
            }
            let wanted =
                if self.breaker.is_closed() { self.has_room(pipeline) } else { !self.waits() };
            let telling = self.breaker.state() == BreakerState::Telling;
            tokio::select! {
                biased;
                // Replies go before deadlines: what has arrived is not late.
                read = wire.exchange() => {
                    let received = read.map_err(|error| error.to_string());
                    if let Err(reason) = received.and_then(|()| self.receive(pipeline, &mut wire)) {
                        return ServeEnd::Lost(reason);
                    }
                }
                () = &mut sleep, if alarm.is_some() => {
                    if let Err(reason) = self.look_late(pipeline, &mut wire).await {
                        return ServeEnd::Lost(reason);
                    }
                    self.reset(sleep.as_mut(), &mut alarm);
                }
                command = self.commands.recv(), if !dropped => match command {
                    Some(command) => {
                        self.send_commands(Some(command), connection, pipeline, &mut wire);
                    }
                    None => dropped = true,
                },
                () = self.calls.changed(wanted, alarm) => self.reset(sleep.as_mut(), &mut alarm),
                () = recovery.settled(), if telling => {
                    self.step(pipeline, &mut wire, "", |breaker, _, now| {
                        breaker.settled(now);
                        false
                    });
                }
            }
        }
    }

    /// Sends user and password again if they have changed.
    fn log_in_again(&self, pipeline: &mut Pipeline<'_>, wire: &mut Wire) {
        if let Some(login) = wire.new_login() {
            pipeline.log_in(&login, &mut wire.output, self.due(Instant::now()));
        }
    }

    fn has_room(&self, pipeline: &Pipeline<'_>) -> bool {
        pipeline.frames() < self.window.frames && pipeline.claims() < self.window.claims
    }

    /// Sends waiting calls until the window is full; refuses them while the breaker is open.
    fn send_waiting(&mut self, pipeline: &mut Pipeline<'_>, wire: &mut Wire) {
        if !self.breaker.is_closed() {
            if !self.waits() {
                self.calls.refuse(&self.refusal());
            }
            return;
        }
        while self.has_room(pipeline) {
            let Some(taken) = pipeline.take(&self.calls, self.frame_limits) else { return };
            self.calls_seen.groups.observe(taken.waiters.len());
            let now = Instant::now();
            let expected = Deadline::after(now, self.allowance, None);
            pipeline.send(taken, &mut wire.output, expected, now + self.response_timeout);
            self.calls.set_alarm(expected.due());
            self.counts.frames.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Sends `first` and the commands that wait, holds that are settled together.
    fn send_commands(
        &mut self,
        first: Option<Command>,
        connection: u64,
        pipeline: &mut Pipeline<'_>,
        wire: &mut Wire,
    ) {
        let mut settles = Vec::new();
        let mut next = first.or_else(|| self.commands.try_recv().ok());
        while let Some(command) = next {
            match command {
                Command::Settle(settle) => settles.push(settle),
                other => self.command(other, connection, pipeline, wire),
            }
            next = self.commands.try_recv().ok();
        }
        if !settles.is_empty() {
            let due = self.due(Instant::now());
            pipeline.settle(settles, &mut wire.output, due);
        }
    }

    fn command(
        &self,
        command: Command,
        connection: u64,
        pipeline: &mut Pipeline<'_>,
        wire: &mut Wire,
    ) {
        let due = self.due(Instant::now());
        match command {
            Command::Forget(forget) => pipeline.forget(forget, &mut wire.output, due),
            Command::Settle(settle) => pipeline.settle(vec![settle], &mut wire.output, due),
            Command::Amend { amendments, connection: charged } if charged == connection => {
                for back in amendments.chunks(MAX_AMENDMENTS) {
                    pipeline.amend(back, false, &mut wire.output, due);
                }
            }
            // They amend charges of a connection that is gone: to another server, or to one that
            // may have lost them.
            Command::Amend { .. } => {}
        }
    }

    fn set_alarm(&self, at: Option<Instant>) {
        if let Some(at) = at {
            self.calls.set_alarm(at);
        }
    }

    /// The time by which Redis must answer a command sent at `now`; afterwards the connection is
    /// closed. Sets the alarm to it.
    fn due(&self, now: Instant) -> Instant {
        let due = now + self.response_timeout;
        self.calls.set_alarm(due);
        due
    }

    /// Distributes the replies that have arrived.
    fn receive(&mut self, pipeline: &mut Pipeline<'_>, wire: &mut Wire) -> Result<(), String> {
        while let Some(message) = wire.next_reply().map_err(|error| error.to_string())? {
            let before = pipeline.frames();
            let completed = pipeline.complete(message, &mut wire.output);
            let ended = before - pipeline.frames();
            self.counts.ended.fetch_add(ended as u64, Ordering::Release);
            let completed = completed?;
            self.counts.unreadable.fetch_add(completed.unreadable, Ordering::Relaxed);
            self.counts.late.fetch_add(completed.heard.late.into(), Ordering::Relaxed);
            if let Some(sent) = completed.sent {
                self.calls_seen.round_trips.observe(sent.elapsed());
            }
            self.note_refusal(&completed);
            if let Some(applied) = completed.told {
                self.told(&applied)?;
            }
            if completed.decided {
                self.plan_telling();
            }
            if let Some(well) = completed.probe {
                self.step(pipeline, wire, "", |breaker, _, now| breaker.probed(well, now));
            } else if self.breaker.is_closed() {
                self.breaker.answered(completed.heard.in_time, Instant::now());
            } else {
                self.step(pipeline, wire, "", Breaker::landed);
            }
        }
        Ok(())
    }

    /// Makes known what an error says about the cluster.
    fn note_refusal(&self, completed: &Completed) {
        let Some(error) = &completed.error else { return };
        match (code(error), &self.node) {
            ("CLUSTERDOWN", Some(node)) => node.is_down(),
            ("CROSSSLOT", Some(_)) => self.notices.crossed(&self.connector, error),
            ("MOVED" | "CROSSSLOT", None) => self.notices.in_cluster(&self.connector, error),
            _ => {}
        }
    }

    /// Resets `sleep` to the alarm of the queue.
    fn reset(&self, sleep: Pin<&mut Sleep>, alarm: &mut Option<Instant>) {
        *alarm = self.calls.alarm();
        if let Some(alarm) = *alarm {
            sleep.reset(alarm);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn panic_of_the_task_is_caught_with_its_text() {
        assert_eq!(panic_of(async {}).await, Ok(()));
        assert_eq!(panic_of(async { panic!("slot {}", 7) }).await, Err("slot 7".to_owned()));
    }
}
