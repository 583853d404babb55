//! The store in a standalone Redis, shared by all replicas that use it.
//!
//! One atomic script (`script/lua/`) decides a whole request on the clock of Redis. Requests that
//! wait at the same time share a call. The failover layer, not this module, decides requests while
//! Redis is down.
//!
//! * `script`: the script in parts, its arguments and its reply as typed values.
//! * `queue`: the requests that wait to be sent.
//! * `batch`: the task that sends them and owns the connection; `pipeline`: the commands in flight.
//! * `telling`: the charges that Redis learns after an outage.
//! * `breaker`: when calls are refused at once, because Redis is late or away.
//! * `health`: the state of the connection; `notices`: the log lines about it.
//!
//! Requires Redis 5 or later, for scripts that read the time before they write.

mod batch;
mod breaker;
mod health;
mod notices;
mod pipeline;
mod queue;
pub mod script;
mod telling;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use self::batch::Batcher;
use self::breaker::Breaker;
pub use self::breaker::BreakerState;
use self::health::{Health, TASK_ENDED};
pub use self::notices::Notices;
use self::pipeline::{Command, Forget};
use self::queue::{Call, Decided, PushError, Queue, Undecided, Waiter};
use self::script::{Encoded, readings};
use self::telling::Telling;
use super::recovery::{Recovery, Teller};
use super::{Answer, Deadline, Late, LateAnswer, LimitStore, StoreError};
use crate::domain::{Commit, Group, Key, Reading};
use crate::redis::{Connector, RedisSettings, SetupError};

/// Maximum number of queued commands that are no decisions: resets by operators, and what is given
/// back after a late answer.
const MAX_QUEUED_COMMANDS: usize = 256;

/// Maximum number of requests that wait to be sent; more are rejected.
pub const MAX_WAITING: usize = 8_192;

/// Options of a store besides the settings of Redis.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Maximum number of requests that wait to be sent; more are rejected.
    pub max_waiting: usize,
    /// The time after which Redis counts as late.
    pub deadline: Duration,
    /// Stores that share them log each event of their connections once.
    pub notices: Notices,
    /// State that the stores of a process share about charges unknown to Redis.
    pub recovery: Arc<Recovery>,
    /// Knows the charges that Redis is to be told.
    pub teller: Option<Arc<dyn Teller>>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            max_waiting: MAX_WAITING,
            deadline: Duration::from_millis(10),
            notices: Notices::default(),
            recovery: Arc::default(),
            teller: None,
        }
    }
}

/// Counters in Redis.
///
/// # Concurrency
/// Clones share one connection and one task. Make one store per runtime.
#[derive(Clone, Debug)]
pub struct RedisStore {
    calls: Arc<Queue>,
    /// The task ends when the last of these is dropped.
    commands: mpsc::Sender<Command>,
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
        Ok(Self::connect_with(settings, connector, StoreOptions::default()))
    }

    /// [`connect`](Self::connect) behind `connector`, with these options.
    ///
    /// # Panics
    /// Panics outside a tokio runtime.
    pub fn connect_with(
        settings: &RedisSettings,
        connector: Connector,
        options: StoreOptions,
    ) -> Self {
        let calls = Arc::new(Queue::new(options.max_waiting.max(1)));
        let (commands, queued) = mpsc::channel(MAX_QUEUED_COMMANDS);
        let health = Arc::new(Health::new());
        options.notices.join();
        let batcher = Batcher {
            connector,
            calls: Arc::clone(&calls),
            commands: queued,
            health: Arc::clone(&health),
            breaker: Breaker::new(options.deadline),
            telling: Telling::new(options.recovery, options.teller),
            frames_in_flight: settings.frames_in_flight.max(1),
            frame_limits: settings.frame_limits.max(1),
            deadline: options.deadline,
            response_timeout: settings.response_timeout,
            notices: options.notices,
        };
        tokio::spawn(batcher.run());
        Self { calls, commands, health }
    }

    /// True once the first attempt to connect has succeeded or failed.
    pub fn has_tried(&self) -> bool {
        self.health.tried.load(Ordering::Relaxed)
    }

    /// True while Redis decides: there is a connection, and its breaker is closed.
    pub fn is_up(&self) -> bool {
        self.health.is_up()
    }

    /// The state of the connection's breaker.
    pub fn breaker(&self) -> BreakerState {
        self.health.breaker()
    }

    /// The number of answers so far that came after their call was decided without them.
    pub fn late_answers(&self) -> u64 {
        self.health.late.load(Ordering::Relaxed)
    }

    /// The number of calls so far that waited longer because this process was late itself.
    pub fn extended_calls(&self) -> u64 {
        self.health.extended.load(Ordering::Relaxed)
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
        deadline: Deadline,
    ) -> Result<Vec<Reading>, Undecided> {
        if group.claims.iter().all(|claim| claim.limit.is_blocked()) {
            return Ok(readings(group, &[])?);
        }
        // Before the group is encoded, so that a refusal costs nothing.
        if let Some(reason) = self.health.down() {
            return Err(StoreError::Unavailable(reason).into());
        }
        let encoded = Encoded::new(group, commit)?;
        let (waiter, answer) = Waiter::new(deadline.asked(Instant::now()));
        self.calls
            .push(Call { group: encoded, waiter })
            .map_err(|refusal| not_sent(matches!(refusal, PushError::Full)))?;
        // The task answers by the deadline, so no timeout is needed here.
        let decided = answer.await.unwrap_or_else(|_| Err(self.lost().into()))?;
        Ok(readings(group, &decided.integers)?)
    }

    /// The outcome of `group`, which was sent and not decided in time.
    fn late(&self, group: &Group, decided: oneshot::Receiver<Decided>) -> Late {
        let (group, commands) = (group.clone(), self.commands.clone());
        Late::new(async move {
            let Decided { integers, at } = decided.await.ok()?;
            let readings = readings(&group, &integers).ok()?;
            // On the same connection, so after the charge. If there is no room, the hits count
            // until they leave by themselves.
            let amend = move |amendments| drop(commands.try_send(Command::Amend(amendments)));
            Some(LateAnswer { readings, at, amend: Box::new(amend) })
        })
    }

    /// The error after the task has dropped a call.
    fn lost(&self) -> StoreError {
        let reason = self.health.down().unwrap_or_else(|| "connection lost".to_owned());
        StoreError::Unavailable(reason)
    }
}

impl LimitStore for RedisStore {
    async fn decide(&self, group: &Group, commit: Commit, deadline: Deadline) -> Answer {
        match self.ask(group, commit, deadline).await {
            Ok(readings) => Answer::full(readings),
            Err(Undecided { error, late }) => {
                let late = late.map(|decided| self.late(group, decided));
                Answer { late, ..Answer::none(group.claims.len(), error) }
            }
        }
    }

    async fn forget(&self, keys: &[Key], deadline: Deadline) -> Result<u32, StoreError> {
        if keys.is_empty() {
            return Ok(0);
        }
        if let Some(reason) = self.health.down() {
            return Err(StoreError::Unavailable(reason));
        }
        let (answer, count) = oneshot::channel();
        let forget = Forget { keys: keys.to_vec(), deadline: deadline.due(), answer };
        self.commands
            .try_send(Command::Forget(forget))
            .map_err(|error| not_sent(matches!(error, TrySendError::Full(_))))?;
        match tokio::time::timeout_at(deadline.due(), count).await {
            Ok(count) => count.unwrap_or_else(|_| Err(self.lost())),
            Err(_) => Err(StoreError::Timeout),
        }
    }
}

fn not_sent(full: bool) -> StoreError {
    let reason = if full { "too many requests wait for Redis" } else { TASK_ENDED };
    StoreError::Unavailable(reason.to_owned())
}
