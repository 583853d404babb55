//! Group commit: groups that arrive while a call of the script is in flight make up the next one.
//!
//! One task owns the connection, drives its socket, forms frames and hands out replies. Nothing waits to make a frame
//! fuller. Nothing is sent twice, except to a server that said it had not run it (NOSCRIPT). While there is no
//! connection every call is refused at once.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, RedisError, ServerErrorKind, Value};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::Health;
use super::connect::{Backoff, Connector, Link};
use super::notices::Notices;
use super::script::{Encoded, Frame, Reply, Script};
use crate::domain::Key;
use crate::store::StoreError;

/// A group that waits for its integers.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) group: Encoded,
    pub(super) deadline: Instant,
    pub(super) answer: oneshot::Sender<Result<Vec<i64>, StoreError>>,
}

impl Call {
    /// Whether nobody waits for the answer any more.
    fn is_abandoned(&self) -> bool {
        self.answer.is_closed() || self.deadline <= Instant::now()
    }
}

/// Counters to empty.
#[derive(Debug)]
pub(super) struct Forget {
    pub(super) keys: Vec<Key>,
    pub(super) deadline: Instant,
    pub(super) answer: oneshot::Sender<Result<u32, StoreError>>,
}

/// The task behind a store. It ends when the store is dropped.
pub(super) struct Batcher {
    pub(super) connector: Connector,
    pub(super) calls: mpsc::Receiver<Call>,
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

impl Batcher {
    pub(super) async fn run(mut self) {
        let script = Script::with_server_time();
        let mut backoff = Backoff::new();
        loop {
            let attempt = self.connector.connect_with(&script);
            let Some(attempt) = refusing(&mut self.calls, &self.health, attempt).await else {
                return;
            };
            let reason = match attempt {
                Ok(link) => {
                    self.notices.connected(&self.connector);
                    self.health.set_connected();
                    let since = Instant::now();
                    let End::Lost(reason) = self.serve(link, &script).await else { return };
                    // A connection that is closed as soon as it is made must not be made all the time.
                    if since.elapsed() >= Backoff::LONGEST {
                        backoff.reset();
                    }
                    reason
                }
                Err(reason) => reason,
            };
            self.health.set_down(&reason);
            self.notices.down(&self.connector, &reason);
            let pause = tokio::time::sleep(backoff.wait());
            if refusing(&mut self.calls, &self.health, pause).await.is_none() {
                return;
            }
        }
    }

    /// Sends frames until the connection is lost.
    async fn serve(&mut self, link: Link, script: &Script) -> End {
        let Link { connection, mut driver } = link;
        let mut flights = FuturesUnordered::new();
        let mut forgetting = FuturesUnordered::new();
        let mut held = None;
        loop {
            if flights.len() < self.frames_in_flight
                && let Some((frame, waiters)) =
                    next_frame(&mut self.calls, &mut held, self.frame_limits)
            {
                let connection = connection.clone();
                let health = &*self.health;
                let timeout = self.response_timeout;
                flights.push(fly(connection, script, frame, waiters, timeout, health));
                continue;
            }
            tokio::select! {
                biased;
                Some(landed) = flights.next() => {
                    if let Err(reason) = landed {
                        return End::Lost(reason);
                    }
                }
                Some(()) = forgetting.next() => {}
                Some(forget) = self.forgets.recv() => {
                    forgetting.push(empty(connection.clone(), forget, self.response_timeout));
                }
                () = &mut driver => return End::Lost("Redis closed the connection".to_owned()),
                call = self.calls.recv(), if flights.len() < self.frames_in_flight => match call {
                    Some(call) => held = Some(call),
                    None => return End::Dropped,
                },
            }
        }
    }
}

/// What waits now, up to `most` claims. `held` is the group that comes first; one that no longer fits is left in it.
fn next_frame(
    calls: &mut mpsc::Receiver<Call>,
    held: &mut Option<Call>,
    most: usize,
) -> Option<(Frame, Vec<Waiter>)> {
    let (mut frame, mut waiters, mut claims) = (Frame::default(), Vec::new(), 0);
    while let Some(call) = held.take().or_else(|| calls.try_recv().ok()) {
        if call.is_abandoned() {
            continue;
        }
        if claims > 0 && claims + call.group.claims() > most {
            *held = Some(call);
            break;
        }
        claims += call.group.claims();
        let waiter = Waiter { integers: call.group.integers(), answer: call.answer };
        match frame.push(call.group) {
            Ok(()) => waiters.push(waiter),
            Err(error) => waiter.answer(Err(error)),
        }
    }
    (!waiters.is_empty()).then_some((frame, waiters))
}

/// Who waits for a part of a reply.
struct Waiter {
    integers: usize,
    answer: oneshot::Sender<Result<Vec<i64>, StoreError>>,
}

impl Waiter {
    /// Answers, unless nobody waits any more.
    fn answer(self, answer: Result<Vec<i64>, StoreError>) {
        drop(self.answer.send(answer));
    }
}

/// Waits for `work` and refuses every call meanwhile; nothing when the store was dropped.
async fn refusing<T>(
    calls: &mut mpsc::Receiver<Call>,
    health: &Health,
    work: impl Future<Output = T>,
) -> Option<T> {
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return Some(done),
            call = calls.recv() => {
                let reason = health.down().unwrap_or_default();
                drop(call?.answer.send(Err(StoreError::Unavailable(reason))));
            }
        }
    }
}

/// Sends one frame and hands out its reply. Fails when the connection must be given up.
async fn fly(
    connection: MultiplexedConnection,
    script: &Script,
    frame: Frame,
    waiters: Vec<Waiter>,
    response_timeout: Duration,
    health: &Health,
) -> Result<(), String> {
    health.frames.fetch_add(1, Ordering::Relaxed);
    let sent = tokio::time::timeout(response_timeout, send(connection, script, &frame)).await;
    let (error, end) = match sent {
        Ok(Ok(value)) => match Reply::new(value) {
            Ok(reply) => {
                health.unreadable.fetch_add(reply.unreadable, Ordering::Relaxed);
                hand_out(reply, waiters);
                return Ok(());
            }
            Err(error) => (error, Ok(())),
        },
        // With a code it is Redis that speaks, and the connection is sound.
        Ok(Err(error)) => match error.code() {
            Some(code) => {
                let text = format!("{code} {}", error.detail().unwrap_or_default());
                // It was a primary when we connected. Whoever is it now, the address may lead there.
                let end = if code == "READONLY" { Err(text.clone()) } else { Ok(()) };
                (StoreError::Rejected(text), end)
            }
            None => (StoreError::Unavailable(error.to_string()), Err(error.to_string())),
        },
        Err(_) => {
            (StoreError::Timeout, Err(format!("Redis gave no answer for {response_timeout:?}")))
        }
    };
    for waiter in waiters {
        waiter.answer(Err(error.clone()));
    }
    end
}

/// Empties counters, unless nobody waits for it any more.
async fn empty(mut connection: MultiplexedConnection, forget: Forget, response_timeout: Duration) {
    let Forget { keys, deadline, answer } = forget;
    if answer.is_closed() || deadline <= Instant::now() {
        return;
    }
    let mut command = redis::cmd("DEL");
    for key in &keys {
        command.arg(key.as_bytes());
    }
    let emptied = tokio::time::timeout(response_timeout, command.query_async(&mut connection));
    drop(answer.send(match emptied.await {
        Ok(Ok(count)) => Ok(count),
        Ok(Err(error)) if error.code().is_some() => Err(StoreError::Rejected(error.to_string())),
        Ok(Err(error)) => Err(StoreError::Unavailable(error.to_string())),
        Err(_) => Err(StoreError::Timeout),
    }));
}

async fn send(
    mut connection: MultiplexedConnection,
    script: &Script,
    frame: &Frame,
) -> Result<Value, RedisError> {
    match script.call(frame).query_async(&mut connection).await {
        Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
            script.call_with_text(frame).query_async(&mut connection).await
        }
        outcome => outcome,
    }
}

fn hand_out(mut reply: Reply, waiters: Vec<Waiter>) {
    for waiter in waiters {
        let integers = reply.next_group(waiter.integers);
        waiter.answer(Ok(integers));
    }
}
