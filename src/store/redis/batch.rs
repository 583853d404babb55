//! Group commit: groups that arrive while a call of the script is in flight form the next call.
//!
//! One task owns the connection, drives its socket, forms frames and distributes replies. A frame
//! is never delayed to become fuller. Nothing is sent twice, except after NOSCRIPT, which proves
//! that the server has not run it. Without a connection every call fails at once.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep_until};

use super::health::{Health, TASK_ENDED};
use super::notices::Notices;
use super::pipeline::{Forget, Pipeline};
use super::queue::Queue;
use super::script::Script;
use crate::redis::Connector;
use crate::redis::backoff::Backoff;
use crate::redis::wire::Wire;
use crate::store::StoreError;

/// The task behind a store. It ends when the store is dropped.
pub(super) struct Batcher {
    pub(super) connector: Connector,
    pub(super) calls: Arc<Queue>,
    pub(super) forgets: mpsc::Receiver<Forget>,
    pub(super) health: Arc<Health>,
    pub(super) frames_in_flight: usize,
    /// Maximum number of claims in a frame of several groups. Frames of more than 64 are not
    /// cheaper per claim, and block Redis longer.
    pub(super) frame_limits: usize,
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
        self.health.set_down(TASK_ENDED);
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
        let health = Arc::clone(&self.health);
        while let Err(fault) = panic_of(self.run_once()).await {
            tracing::error!(fault, "the task of a Redis connection panicked and is started again");
            health.set_down("the connection task panicked");
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
                    self.notices.connected(&self.connector);
                    self.health.set_connected();
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
            self.health.set_down(&reason);
            self.notices.down(&self.connector, &reason);
            if self.refusing(tokio::time::sleep(backoff.wait())).await.is_none() {
                return;
            }
        }
    }

    /// Runs `work` and refuses every call meanwhile. Returns `None` if the store is dropped.
    async fn refusing<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::pin!(work);
        loop {
            let refusal = || StoreError::Unavailable(self.health.down().unwrap_or_default());
            tokio::select! {
                done = &mut work => return Some(done),
                () = self.calls.changed(true, self.calls.alarm()) => self.calls.refuse(&refusal()),
                forget = self.forgets.recv() => drop(forget?.answer.send(Err(refusal()))),
            }
        }
    }

    /// Sends frames until the connection is lost.
    async fn serve(&mut self, mut wire: Wire, script: &Script) -> ServeEnd {
        let mut pipeline = Pipeline::new(script);
        let mut alarm = self.calls.alarm();
        let sleep = sleep_until(alarm.unwrap_or_else(Instant::now));
        tokio::pin!(sleep);
        let reason = loop {
            self.log_in_again(&mut pipeline, &mut wire);
            self.send_waiting(&mut pipeline, &mut wire);
            let room = pipeline.frames() < self.frames_in_flight;
            tokio::select! {
                biased;
                () = &mut sleep, if alarm.is_some() => {
                    if let Err(reason) = self.expire(&mut pipeline) {
                        break reason;
                    }
                    self.reset(sleep.as_mut(), &mut alarm);
                }
                read = wire.exchange() => {
                    let received = read.map_err(|error| error.to_string());
                    if let Err(reason) = received.and_then(|()| self.receive(&mut pipeline, &mut wire)) {
                        break reason;
                    }
                }
                forget = self.forgets.recv() => match forget {
                    Some(forget) => self.forget(forget, &mut pipeline, &mut wire),
                    None => return ServeEnd::Dropped,
                },
                () = self.calls.changed(room, alarm) => self.reset(sleep.as_mut(), &mut alarm),
            }
        };
        pipeline.fail(&StoreError::Unavailable(reason.clone()));
        ServeEnd::Lost(reason)
    }

    /// Sends user and password again if they have changed.
    fn log_in_again(&self, pipeline: &mut Pipeline<'_>, wire: &mut Wire) {
        if let Some(login) = wire.new_login() {
            pipeline.log_in(&login, &mut wire.output, self.due());
        }
    }

    /// Sends waiting calls until `frames_in_flight` is reached.
    fn send_waiting(&self, pipeline: &mut Pipeline<'_>, wire: &mut Wire) {
        while pipeline.frames() < self.frames_in_flight {
            let calls = self.calls.next_frame(self.frame_limits);
            if calls.is_empty() {
                return;
            }
            if pipeline.send(calls, &mut wire.output, self.due()) {
                self.health.frames.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn forget(&self, forget: Forget, pipeline: &mut Pipeline<'_>, wire: &mut Wire) {
        pipeline.forget(forget, &mut wire.output, self.due());
    }

    /// The time by which Redis must answer a command sent now; afterwards the connection is closed.
    /// Sets the alarm to it.
    fn due(&self) -> Instant {
        let due = Instant::now() + self.response_timeout;
        self.calls.set_alarm(due);
        due
    }

    /// Distributes the replies that have arrived.
    fn receive(&self, pipeline: &mut Pipeline<'_>, wire: &mut Wire) -> Result<(), String> {
        while let Some(message) = wire.next_reply().map_err(|error| error.to_string())? {
            let unreadable = pipeline.complete(message, &mut wire.output)?;
            self.health.unreadable.fetch_add(unreadable, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Answers the calls that are past their deadline. Fails if Redis exceeds the response timeout.
    fn expire(&self, pipeline: &mut Pipeline<'_>) -> Result<(), String> {
        let now = Instant::now();
        if pipeline.expire(now) {
            pipeline.fail(&StoreError::Timeout);
            return Err(format!("Redis gave no answer for {:?}", self.response_timeout));
        }
        self.calls.expire(now, pipeline.alarm());
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
