//! One connection to one server, with the queue before it.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::batch::{Batcher, Window};
use super::breaker::{Breaker, BreakerState};
use super::decided::{Decided, Undecided};
use super::health::{Counts, Health, TASK_ENDED};
use super::node::Node;
use super::options::StoreOptions;
use super::pipeline::{Command, Forget, Settle};
use super::queue::{Place, PushError, Queue};
use super::script::Encoded;
use super::telling::Telling;
use crate::domain::{Amendment, Key, Settled, Settlement};
use crate::redis::{Connector, RedisSettings};
use crate::store::{Deadline, StoreError};

/// Maximum number of queued commands that are no decisions: resets by operators, holds that are
/// settled, and what is given back after a late answer.
const MAX_QUEUED_COMMANDS: usize = 4_096;

/// A connection that comes back after it is lost. Its task ends with it, after the answers to what
/// was sent.
#[derive(Debug)]
pub(super) struct Pipe {
    calls: Queue,
    /// The task ends when this is dropped.
    commands: mpsc::Sender<Command>,
    health: Arc<Health>,
}

impl Pipe {
    /// Connects in the background, in a task on `runtime`, to a server or to a node of a cluster.
    /// The first calls to a node wait for the connection: a redirection may have named it just now.
    pub(super) fn start(
        runtime: &Handle,
        settings: &RedisSettings,
        connector: Connector,
        node: Option<Node>,
        options: &StoreOptions,
        counts: Arc<Counts>,
    ) -> Self {
        let calls = Queue::new(options.max_waiting.max(1));
        let (commands, queued) = mpsc::channel(MAX_QUEUED_COMMANDS);
        let health = Arc::new(Health::new());
        options.notices.join();
        // Calls that come before the first attempt to connect has ended wait for it, each until its
        // deadline: otherwise every start would admit a share. A node of a cluster that is silent
        // must not hold up the calls of others for as long.
        let patience =
            if node.is_some() { options.allowance.time } else { settings.connect_timeout };
        let batcher = Batcher {
            connector,
            calls: calls.clone(),
            commands: queued,
            health: Arc::clone(&health),
            counts,
            patient_until: Some(Instant::now() + patience),
            window: Window::new(settings, node.is_some()),
            breaker: Breaker::new(options.allowance.time),
            telling: Telling::new(
                Arc::clone(&options.recovery),
                options.teller.clone(),
                node.clone(),
            ),
            node,
            frame_limits: settings.frame_limits.max(1),
            allowance: options.allowance,
            response_timeout: settings.response_timeout,
            notices: options.notices.clone(),
            calls_seen: options.calls.clone(),
        };
        runtime.spawn(batcher.run());
        Self { calls, commands, health }
    }

    /// True once the first attempt to connect has succeeded or failed.
    pub(super) fn has_tried(&self) -> bool {
        self.health.has_tried()
    }

    /// True while calls are sent.
    pub(super) fn is_up(&self) -> bool {
        self.health.is_up()
    }

    /// The state of the breaker.
    pub(super) fn breaker(&self) -> BreakerState {
        self.health.breaker()
    }

    /// # Errors
    /// Fails at once if calls are refused.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        self.health.refusal().map_or(Ok(()), |reason| Err(StoreError::Unavailable(reason)))
    }

    /// Asks for a decision on the group that `encode` returns, no later than `deadline`.
    pub(super) async fn ask(
        &self,
        encode: impl Fn() -> Result<Encoded, StoreError>,
        place: Place,
        deadline: Deadline,
    ) -> Result<Decided, Undecided> {
        let asked = self.calls.ask(encode, place, deadline).await;
        let answer = asked.map_err(|refusal| match refusal {
            PushError::Invalid(error) => error,
            PushError::Full => not_sent(true),
            PushError::Closed => not_sent(false),
        })?;
        answer.unwrap_or_else(|| Err(self.lost().into()))
    }

    /// Resets the counters of `keys`, which are of one slot in a cluster. Waits for the first
    /// attempt to connect, also beyond the patience of decisions.
    pub(super) async fn forget(
        &self,
        keys: Vec<Key>,
        asking: bool,
        deadline: Deadline,
    ) -> Result<u32, Undecided> {
        drop(tokio::time::timeout_at(deadline.due(), self.health.tried()).await);
        self.check()?;
        let (answer, count) = oneshot::channel();
        let forget = Forget { keys, deadline: deadline.due(), asking, answer };
        self.commands
            .try_send(Command::Forget(forget))
            .map_err(|error| not_sent(matches!(error, TrySendError::Full(_))))?;
        match tokio::time::timeout_at(deadline.due(), count).await {
            Ok(count) => count.unwrap_or_else(|_| Err(self.lost().into())),
            Err(_) => Err(StoreError::Timeout.into()),
        }
    }

    /// Settles a hold, ahead of calls that are asked later. There is no deadline: the connection
    /// ends when Redis does not answer.
    pub(super) async fn settle(
        &self,
        settlement: Settlement,
        asking: bool,
    ) -> Result<Settled, Undecided> {
        self.check()?;
        let (answer, settled) = oneshot::channel();
        let settle = Settle { settlement, asking, answer };
        self.commands
            .try_send(Command::Settle(settle))
            .map_err(|error| not_sent(matches!(error, TrySendError::Full(_))))?;
        settled.await.unwrap_or_else(|_| Err(self.lost().into()))
    }

    /// Amends counters that were charged on the `connection`-th connection, if that is still open.
    /// If there is no room, the hits count until they leave by themselves.
    pub(super) fn amend(&self, amendments: Vec<Amendment>, connection: u64) {
        drop(self.commands.try_send(Command::Amend { amendments, connection }));
    }

    /// The error after the task has dropped a call.
    fn lost(&self) -> StoreError {
        let reason = self.health.down().unwrap_or_else(|| "connection lost".to_owned());
        StoreError::Unavailable(reason)
    }
}

impl Window {
    /// Some full frames of a standalone server. In a cluster frames are smaller, so the claims in
    /// as many full frames count.
    fn new(settings: &RedisSettings, in_cluster: bool) -> Self {
        let frames = settings.frames_in_flight.max(1);
        let claims = frames.saturating_mul(settings.frame_limits.max(1));
        if in_cluster {
            Self { frames: usize::MAX, claims }
        } else {
            Self { frames, claims: usize::MAX }
        }
    }
}

fn not_sent(full: bool) -> StoreError {
    let reason = if full { "too many requests wait for Redis" } else { TASK_ENDED };
    StoreError::Unavailable(reason.to_owned())
}
