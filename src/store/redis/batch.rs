//! Group commit: groups that arrive while a call of the script is in flight make up the next one.
//!
//! One task owns the connection, drives its socket, forms frames and hands out replies. Nothing waits to make a frame
//! fuller. Nothing is sent twice, except to a server that said it had not run it (NOSCRIPT). While there is no
//! connection every call is refused at once.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep_until};

use super::flights::{Flights, Forget};
use super::health::{Health, TASK_ENDED};
use super::notices::Notices;
use super::queue::Queue;
use super::script::Script;
use crate::redis::backoff::Backoff;
use crate::redis::connect::Connector;
use crate::redis::wire::Wire;
use crate::store::StoreError;

/// The task behind a store. It ends when the store is dropped.
pub(super) struct Batcher {
    pub(super) connector: Connector,
    pub(super) calls: Arc<Queue>,
    pub(super) forgets: mpsc::Receiver<Forget>,
    pub(super) health: Arc<Health>,
    pub(super) frames_in_flight: usize,
    /// The most claims in a frame of several groups. Beyond 64 they are no cheaper each, and hold Redis up.
    pub(super) frame_limits: usize,
    pub(super) response_timeout: Duration,
    pub(super) notices: Notices,
}

/// Why a connection is no longer served.
enum End {
    /// It is gone, for this reason.
    Lost(String),
    /// The store was dropped.
    Dropped,
}

impl Drop for Batcher {
    /// Calls get no answer from here on, and the store says that it is down.
    fn drop(&mut self) {
        self.health.set_down(TASK_ENDED);
        self.calls.close();
    }
}

/// Waits for `work`, and returns the text of its panic if it panics.
async fn panic_of(work: impl Future<Output = ()>) -> Result<(), String> {
    AssertUnwindSafe(work).catch_unwind().await.map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
    })
}

impl Batcher {
    /// Serves until the store is dropped. After a panic, which is a fault of tollgate, it serves on with a new
    /// connection: the calls under way are answered as lost.
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
                    let End::Lost(reason) = self.serve(wire, &script).await else { return };
                    // A connection that is closed as soon as it is made must not be made all the time.
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

    /// Waits for `work` and refuses every call meanwhile; nothing when the store was dropped.
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
    async fn serve(&mut self, mut wire: Wire, script: &Script) -> End {
        let mut flights = Flights::new(script);
        let mut alarm = self.calls.alarm();
        let sleep = sleep_until(alarm.unwrap_or_else(Instant::now));
        tokio::pin!(sleep);
        let reason = loop {
            self.depart(&mut flights, &mut wire);
            let room = flights.frames() < self.frames_in_flight;
            tokio::select! {
                biased;
                () = &mut sleep, if alarm.is_some() => {
                    if let Err(reason) = self.give_up_late(&mut flights) {
                        break reason;
                    }
                    self.set(sleep.as_mut(), &mut alarm);
                }
                read = wire.exchange() => {
                    let landed = read.map_err(|error| error.to_string());
                    if let Err(reason) = landed.and_then(|()| self.land(&mut flights, &mut wire)) {
                        break reason;
                    }
                }
                forget = self.forgets.recv() => match forget {
                    Some(forget) => self.forget(forget, &mut flights, &mut wire),
                    None => return End::Dropped,
                },
                () = self.calls.changed(room, alarm) => self.set(sleep.as_mut(), &mut alarm),
            }
        };
        flights.fail(&StoreError::Unavailable(reason.clone()));
        End::Lost(reason)
    }

    /// Sends what waits, as far as there is room.
    fn depart(&self, flights: &mut Flights<'_>, wire: &mut Wire) {
        while flights.frames() < self.frames_in_flight {
            let calls = self.calls.take(self.frame_limits);
            if calls.is_empty() {
                return;
            }
            if flights.send(calls, &mut wire.output, self.due()) {
                self.health.frames.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn forget(&self, forget: Forget, flights: &mut Flights<'_>, wire: &mut Wire) {
        flights.forget(forget, &mut wire.output, self.due());
    }

    /// When a connection that has not answered what is sent now is given up.
    fn due(&self) -> Instant {
        let due = Instant::now() + self.response_timeout;
        self.calls.set_alarm(due);
        due
    }

    /// Hands out what was answered.
    fn land(&self, flights: &mut Flights<'_>, wire: &mut Wire) -> Result<(), String> {
        while let Some(message) = wire.replies.next().map_err(|error| error.to_string())? {
            let unreadable = flights.land(message, &mut wire.output)?;
            self.health.unreadable.fetch_add(unreadable, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Answers the calls that are late. Fails when Redis is.
    fn give_up_late(&self, flights: &mut Flights<'_>) -> Result<(), String> {
        let now = Instant::now();
        if flights.expire(now) {
            flights.fail(&StoreError::Timeout);
            return Err(format!("Redis gave no answer for {:?}", self.response_timeout));
        }
        self.calls.expire(now, flights.alarm());
        Ok(())
    }

    /// Makes `sleep` last until the alarm of the queue.
    fn set(&self, sleep: Pin<&mut Sleep>, alarm: &mut Option<Instant>) {
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
