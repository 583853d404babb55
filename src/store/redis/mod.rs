//! Counters in a standalone Redis, shared by every replica that uses it.
//!
//! A whole request is decided by one atomic script (`script/lua/`) on the clock of Redis; requests that wait at the
//! same time share a call. What becomes of a request while Redis is away is not decided here.
//!
//! * `script`: the script in parts, its arguments and its reply as typed values.
//! * `queue`: where requests wait.
//! * `batch`: the task that takes them and owns the connection; `flights`: the calls it has under way.
//! * `health`: the state of the connection; `notices`: the log lines about it.
//!
//! Needs Redis 5 or later (scripts that read the time before they write).

mod batch;
mod flights;
mod health;
mod notices;
mod queue;
pub mod script;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use self::batch::Batcher;
use self::flights::Forget;
use self::health::{Health, TASK_ENDED};
pub use self::notices::Notices;
use self::queue::{Call, NotTaken, Queue, Waiter};
use self::script::{Encoded, readings};
use super::{Answer, LimitStore, StoreError};
use crate::domain::{Commit, Group, Key, Reading};
use crate::redis::{BadUrl, RedisSettings};

/// How many calls that empty counters may wait; operators make them, not requests.
const FORGETS: usize = 64;

/// Requests that may wait to be sent; more are refused.
pub const MAX_WAITING: usize = 8_192;

/// Counters in Redis.
///
/// # Concurrency
/// One connection and one task, which clones share; make one store per runtime.
#[derive(Clone, Debug)]
pub struct RedisStore {
    calls: Arc<Queue>,
    /// The task ends when the last of these is dropped.
    forgets: mpsc::Sender<Forget>,
    health: Arc<Health>,
}

impl RedisStore {
    /// A store that connects in the background, from a task on the present tokio runtime; the task ends when the
    /// last clone is dropped. Redis need not be there yet.
    ///
    /// # Errors
    /// A URL that cannot be used.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn connect(settings: &RedisSettings) -> Result<Self, BadUrl> {
        Self::connect_with(settings, MAX_WAITING, Notices::default())
    }

    /// A store as of [`connect`](Self::connect) in which at most `max_waiting` requests wait to be
    /// sent. Stores that share `notices` log each event of their connections once.
    ///
    /// # Errors
    /// A URL that cannot be used.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn connect_with(
        settings: &RedisSettings,
        max_waiting: usize,
        notices: Notices,
    ) -> Result<Self, BadUrl> {
        let calls = Arc::new(Queue::new(max_waiting.max(1)));
        let (forgets, to_forget) = mpsc::channel(FORGETS);
        let health = Arc::new(Health::new());
        let batcher = Batcher {
            connector: settings.connector()?,
            calls: Arc::clone(&calls),
            forgets: to_forget,
            health: Arc::clone(&health),
            frames_in_flight: settings.frames_in_flight.max(1),
            frame_limits: settings.frame_limits.max(1),
            response_timeout: settings.response_timeout,
            notices,
        };
        tokio::spawn(batcher.run());
        Ok(Self { calls, forgets, health })
    }

    /// Whether an attempt to connect has ended, well or not.
    pub fn has_tried(&self) -> bool {
        self.health.tried.load(Ordering::Relaxed)
    }

    /// Whether there is a connection now.
    pub fn is_connected(&self) -> bool {
        self.health.down.load().is_none()
    }

    /// How often a stored state could not be read so far, and counted as empty.
    pub fn unreadable_states(&self) -> u64 {
        self.health.unreadable.load(Ordering::Relaxed)
    }

    /// How many calls of the script were sent so far.
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
            .map_err(|refusal| not_sent(matches!(refusal, NotTaken::Full)))?;
        // The task answers before the deadline.
        readings(group, &answer.await.unwrap_or_else(|_| Err(self.lost()))?)
    }

    /// Why the task answers no more.
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
