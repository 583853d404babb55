//! Group commit: groups that arrive while a call of the script is in flight form the next call.
//!
//! One task owns the connection, drives its socket, forms frames and distributes replies. A frame
//! is never delayed to become fuller. Nothing is sent twice, except after NOSCRIPT, which proves
//! that the server has not run it. While the breaker is open every call fails at once.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep_until};

use super::breaker::{Breaker, BreakerState};
use super::health::{Health, TASK_ENDED};
use super::notices::Notices;
use super::pipeline::{Command, Pipeline};
use super::queue::Queue;
use super::script::{MAX_AMENDMENTS, Script};
use super::telling::Telling;
use crate::redis::Connector;
use crate::redis::backoff::Backoff;
use crate::redis::wire::Wire;
use crate::store::{Deadline, StoreError};

/// The task behind a store. It ends when the store is dropped.
pub(super) struct Batcher {
    pub(super) connector: Connector,
    pub(super) calls: Arc<Queue>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) health: Arc<Health>,
    pub(super) breaker: Breaker,
    pub(super) telling: Telling,
    pub(super) frames_in_flight: usize,
    /// Maximum number of claims in a frame of several groups. Frames of more than 64 are not
    /// cheaper per claim, and block Redis longer.
    pub(super) frame_limits: usize,
    /// The time after which a frame is overdue.
    pub(super) deadline: Duration,
    pub(super) response_timeout: Duration,
    pub(super) notices: Notices,
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

    /// The connection is lost, or could not be made.
    fn lost(&mut self, reason: &str) {
        let before = self.breaker.state();
        self.telling.lost();
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
            self.plan_telling();
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

    /// The error of a call that is refused.
    fn refusal(&self) -> StoreError {
        StoreError::Unavailable(self.health.down().unwrap_or_default())
    }

    /// Runs `work` and refuses every call meanwhile. Returns `None` if the store is dropped.
    async fn refusing<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::pin!(work);
        loop {
            let refusal = self.refusal();
            tokio::select! {
                done = &mut work => return Some(done),
                () = self.calls.changed(true, self.calls.alarm()) => self.calls.refuse(&refusal),
                command = self.commands.recv() => {
                    if let Command::Forget(forget) = command? {
                        drop(forget.answer.send(Err(refusal)));
                    }
                }
            }
        }
    }

    /// Sends frames until the connection is lost.
    async fn serve(&mut self, wire: Wire, script: &Script) -> ServeEnd {
        let amend = Script::amend_with_server_time();
        let mut pipeline = Pipeline::new(script, &amend);
        let served = self.serve_pipeline(wire, &mut pipeline).await;
        if let ServeEnd::Lost(reason) = &served {
            pipeline.fail(&StoreError::Unavailable(reason.clone()));
        }
        served
    }

    async fn serve_pipeline(&mut self, mut wire: Wire, pipeline: &mut Pipeline<'_>) -> ServeEnd {
        let recovery = Arc::clone(self.telling.recovery());
        self.step(pipeline, &mut wire, "", |breaker, _, now| {
            breaker.connected(now);
            true
        });
        let mut alarm = None;
        let sleep = sleep_until(Instant::now());
        tokio::pin!(sleep);
        loop {
            self.log_in_again(pipeline, &mut wire);
            self.send_waiting(pipeline, &mut wire);
            let wanted = !self.breaker.is_closed() || pipeline.frames() < self.frames_in_flight;
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
                command = self.commands.recv() => match command {
                    Some(command) => self.command(command, pipeline, &mut wire),
                    None => return ServeEnd::Dropped,
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

    /// Sends waiting calls until `frames_in_flight` is reached; refuses them while the breaker is
    /// open.
    fn send_waiting(&self, pipeline: &mut Pipeline<'_>, wire: &mut Wire) {
        if !self.breaker.is_closed() {
            self.calls.refuse(&self.refusal());
            return;
        }
        while pipeline.frames() < self.frames_in_flight {
            let calls = self.calls.next_frame(self.frame_limits);
            if calls.is_empty() {
                return;
            }
            let now = Instant::now();
            let expected = Deadline::after(now, self.deadline, None);
            if pipeline.send(calls, &mut wire.output, expected, now + self.response_timeout) {
                self.calls.set_alarm(expected.due());
                self.health.frames.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn command(&self, command: Command, pipeline: &mut Pipeline<'_>, wire: &mut Wire) {
        let due = self.due(Instant::now());
        match command {
            Command::Forget(forget) => pipeline.forget(forget, &mut wire.output, due),
            Command::Amend(back) => {
                for back in back.chunks(MAX_AMENDMENTS) {
                    pipeline.amend(back, false, &mut wire.output, due);
                }
            }
        }
    }

    fn plan_telling(&mut self) {
        self.telling.plan(Instant::now());
        self.set_alarm(self.telling.alarm());
    }

    fn set_alarm(&self, at: Option<Instant>) {
        if let Some(at) = at {
            self.calls.set_alarm(at);
        }
    }

    /// Tells Redis some of what it does not know, if it is time.
    fn tell(&mut self, pipeline: &mut Pipeline<'_>, wire: &mut Wire, now: Instant) {
        let fit = matches!(self.breaker.state(), BreakerState::Telling | BreakerState::Closed);
        let due = now + self.response_timeout;
        let amendments = self.telling.due(now, fit);
        if !amendments.is_empty() {
            pipeline.amend(amendments, true, &mut wire.output, due);
        }
    }

    /// The time by which Redis must answer a command sent at `now`; afterwards the connection is
    /// closed. Sets the alarm to it.
    fn due(&self, now: Instant) -> Instant {
        let due = now + self.response_timeout;
        self.calls.set_alarm(due);
        due
    }

    /// Moves the breaker by `event`, which returns true if a probe is wanted, and sends that. The
    /// breaker may open for `reason`.
    fn step(
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

    /// Distributes the replies that have arrived.
    fn receive(&mut self, pipeline: &mut Pipeline<'_>, wire: &mut Wire) -> Result<(), String> {
        while let Some(message) = wire.next_reply().map_err(|error| error.to_string())? {
            let completed = pipeline.complete(message, &mut wire.output)?;
            self.health.unreadable.fetch_add(completed.unreadable, Ordering::Relaxed);
            self.health.late.fetch_add(completed.late.into(), Ordering::Relaxed);
            if let Some(applied) = completed.told {
                if let Err(error) = &applied {
                    self.notices.untold(&self.connector, error);
                }
                self.telling.answered(applied.as_deref().ok(), Instant::now());
                self.set_alarm(self.telling.alarm());
            }
            if completed.decided {
                self.plan_telling();
            }
            if let Some(well) = completed.probe {
                self.step(pipeline, wire, "", |breaker, _, now| breaker.probed(well, now));
            } else if self.breaker.is_closed() {
                self.breaker.answered(completed.answered, Instant::now());
            } else {
                self.step(pipeline, wire, "", Breaker::landed);
            }
        }
        Ok(())
    }

    /// Gives up what is late, after what has arrived was read.
    ///
    /// # Errors
    /// Fails if Redis exceeds the response timeout, or the connection is lost.
    async fn look_late(
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
        self.health.extended.fetch_add(extended.into(), Ordering::Relaxed);
        if expired.overdue {
            let reason = format!("Redis gave no answer for {:?}", self.deadline);
            self.step(pipeline, wire, &reason, |breaker, _, now| {
                breaker.overdue(now);
                false
            });
        }
        if late > 0 {
            let reason = format!("Redis is slow: a fifth of its answers take {:?}", self.deadline);
            self.step(pipeline, wire, &reason, |breaker, in_flight, now| {
                breaker.late(late, in_flight, now);
                false
            });
        }
        self.step(pipeline, wire, "", Breaker::tick);
        self.tell(pipeline, wire, now);
        for alarm in
            [pipeline.alarm(self.breaker.is_closed()), self.breaker.alarm(), self.telling.alarm()]
        {
            self.set_alarm(alarm);
        }
        Ok(())
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
