//! The store in a standalone Redis, shared by all replicas that use it.
//!
//! One atomic script (`script/lua/`) decides a whole request on the clock of Redis. Requests that
//! wait at the same time share a call. The failover layer, not this module, decides requests while
//! Redis is down.
//!
//! * `script`: the script in parts, its arguments and its reply as typed values.
//! * `queue`: the requests that wait to be sent.
//! * `batch`: the task that sends them and owns the connection; `pipeline`: the commands in flight.
//! * `health`: the state of the connection; `notices`: the log lines about it.
//!
//! Requires Redis 5 or later, for scripts that read the time before they write.

mod batch;
mod health;
mod notices;
mod pipeline;
mod queue;
pub mod script;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use self::batch::Batcher;
use self::health::{Health, TASK_ENDED};
pub use self::notices::Notices;
use self::pipeline::Forget;
use self::queue::{Call, PushError, Queue, Waiter};
use self::script::{Encoded, readings};
use super::{Answer, LimitStore, StoreError};
use crate::domain::{Commit, Group, Key, Reading};
use crate::redis::{Connector, RedisSettings, SetupError};

/// Maximum number of queued resets of counters. Operators reset counters, requests do not.
const MAX_QUEUED_FORGETS: usize = 64;

/// Maximum number of requests that wait to be sent; more are rejected.
pub const MAX_WAITING: usize = 8_192;

/// Counters in Redis.
///
/// # Concurrency
/// Clones share one connection and one task. Make one store per runtime.
#[derive(Clone, Debug)]
pub struct RedisStore {
    calls: Arc<Queue>,
    /// The task ends when the last of these is dropped.
    forgets: mpsc::Sender<Forget>,
    health: Arc<Health>,
}

impl RedisStore {
    /// Makes a store that connects in the background, in a task on the current tokio runtime. Redis
    /// need not be up yet. The task ends when the last clone is dropped.
    ///
    /// # Errors
    /// Fails if the settings lead to no Redis.
    ///
    /// # Panics
    /// Panics outside a tokio runtime.
    pub fn connect(settings: &RedisSettings) -> Result<Self, SetupError> {
        let connector = settings.connector()?;
        Ok(Self::connect_with(settings, connector, MAX_WAITING, Notices::default()))
    }

    /// [`connect`](Self::connect) behind `connector`, with at most `max_waiting` requests that wait
    /// to be sent. Stores that share `notices` log each event of their connections once.
    ///
    /// # Panics
    /// Panics outside a tokio runtime.
    pub fn connect_with(
        settings: &RedisSettings,
        connector: Connector,
        max_waiting: usize,
        notices: Notices,
    ) -> Self {
        let calls = Arc::new(Queue::new(max_waiting.max(1)));
        let (forgets, to_forget) = mpsc::channel(MAX_QUEUED_FORGETS);
        let health = Arc::new(Health::new());
        let batcher = Batcher {
            connector,
            calls: Arc::clone(&calls),
            forgets: to_forget,
            health: Arc::clone(&health),
            frames_in_flight: settings.frames_in_flight.max(1),
            frame_limits: settings.frame_limits.max(1),
            response_timeout: settings.response_timeout,
            notices,
        };
        tokio::spawn(batcher.run());
        Self { calls, forgets, health }
    }

    /// True once the first attempt to connect has succeeded or failed.
    pub fn has_tried(&self) -> bool {
        self.health.tried.load(Ordering::Relaxed)
    }

    /// True while there is a connection.
    pub fn is_connected(&self) -> bool {
        self.health.down.load().is_none()
    }

    /// The number of stored states so far that could not be decoded. Such a state counts as empty.
    pub fn unreadable_states(&self) -> u64 {
        self.health.unreadable.load(Ordering::Relaxed)
    }

    /// The number of calls of the script sent so far.
    pub fn frames(&self) -> u64 {
        self.health.frames.load(Ordering::Relaxed)
    }

    async fn ask(
        &self,
        group: &Group,
        commit: Commit,
        deadline: Instant,
    ) -> Result<Vec<Reading>, StoreError> {
        let encoded = Encoded::new(group, commit)?;
        if encoded.is_certain() {
            return readings(group, &[]);
        }
        if let Some(reason) = self.health.down() {
            return Err(StoreError::Unavailable(reason));
        }
        let (waiter, answer) = Waiter::new(deadline);
        self.calls
            .push(Call { group: encoded, waiter })
            .map_err(|refusal| not_sent(matches!(refusal, PushError::Full)))?;
        // The task answers by the deadline, so no timeout is needed here.
        readings(group, &answer.await.unwrap_or_else(|_| Err(self.lost()))?)
    }

    /// The error after the task has dropped a call.
    fn lost(&self) -> StoreError {
        let reason = self.health.down().unwrap_or_else(|| "connection lost".to_owned());
        StoreError::Unavailable(reason)
    }
}

impl LimitStore for RedisStore {
    async fn decide(&self, group: &Group, commit: Commit, deadline: Instant) -> Answer {
        match self.ask(group, commit, deadline).await {
            Ok(readings) => Answer::full(readings),
            Err(failure) => Answer::none(group.claims.len(), failure),
        }
    }

    async fn forget(&self, keys: &[Key], deadline: Instant) -> Result<u32, StoreError> {
        if keys.is_empty() {
            return Ok(0);
        }
        if let Some(reason) = self.health.down() {
            return Err(StoreError::Unavailable(reason));
        }
        let (answer, count) = oneshot::channel();
        let forget = Forget { keys: keys.to_vec(), deadline, answer };
        self.forgets
            .try_send(forget)
            .map_err(|error| not_sent(matches!(error, TrySendError::Full(_))))?;
        match tokio::time::timeout_at(deadline, count).await {
            Ok(count) => count.unwrap_or_else(|_| Err(self.lost())),
            Err(_) => Err(StoreError::Timeout),
        }
    }
}

fn not_sent(full: bool) -> StoreError {
    let reason = if full { "too many requests wait for Redis" } else { TASK_ENDED };
    StoreError::Unavailable(reason.to_owned())
}
