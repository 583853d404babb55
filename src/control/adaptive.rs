//! Turns rules that adapt: the signals of all replicas in, scales in the registry out.
//!
//! ```text
//!  each replica, each second: signals --post--> board of the registry
//!  one replica, 0.2 s later:  board --> one controller per rule --> scales, in force everywhere
//! ```
//! * `board`: the signals of a second, as replicas post and read them.
//! * `lock`: the replica that controls. Every write of scales renews its lock in the same step, so
//!   one that has lost it, and does not know yet, writes nothing.
//! * `tended`: the controllers, and what they have to write.
//!
//! Without news a scale ends by itself after a minute: if no replica controls, no report comes, or
//! the registry is away, the limits are whole again.

mod board;
mod lock;
mod tended;

use std::time::Duration;

use self::board::Board;
use self::lock::Lock;
use self::tended::Tended;
use super::Control;
use super::registry::{Registry, RegistryError};

/// The interval in which it is noticed that rules adapt.
const NOTICE: Duration = Duration::from_millis(200);

/// Replicas post within this time after a second.
const POSTED_WITHIN: Duration = Duration::from_millis(50);

/// The time from the end of a second until its posts are read.
const READ_AFTER: Duration = Duration::from_millis(200);

const SECOND_US: u64 = 1_000_000;

/// Posts the signals of the process `id`, and controls while it has the lock, until it is dropped.
pub async fn run<R: Registry>(control: &Control<R>, id: u128) {
    let mut group =
        Group { control, id, lock: Lock::new(id), board: Board::default(), tended: None };
    loop {
        if !control.shared().policies.have_adaptive() {
            group.rest();
            tokio::time::sleep(NOTICE).await;
            continue;
        }
        let second = group.next_second().await;
        if let Err(error) = group.turn(second).await {
            // The follower reports that the registry cannot be reached.
            tracing::debug!(%error, "rules that adapt stay as they are");
            group.rest();
        }
    }
}

struct Group<'a, R> {
    control: &'a Control<R>,
    id: u128,
    lock: Lock,
    board: Board,
    /// Those of the replica that controls.
    tended: Option<Tended>,
}

impl<R: Registry> Group<'_, R> {
    /// Waits for the end of the running second of the registry's clock. Returns its number.
    async fn next_second(&self) -> u64 {
        let now = self.control.shared().resolver.clients.now().as_micros();
        let next = now / SECOND_US + 1;
        let random = POSTED_WITHIN.mul_f64(fastrand::f64());
        tokio::time::sleep(Duration::from_micros(next * SECOND_US - now) + random).await;
        next - 1
    }

    async fn turn(&mut self, second: u64) -> Result<(), RegistryError> {
        let (control, registry) = (self.control, &**self.control.registry());
        let own = control.shared().policies.signals.take();
        if registry.is_shared() {
            registry.post(second, self.id, board::written(&own)).await?;
        }
        if !self.lock.take(registry, control.shared().resolver.clients.now()).await? {
            self.rest();
            return Ok(());
        }
        let seen = if registry.is_shared() {
            tokio::time::sleep(READ_AFTER.saturating_sub(POSTED_WITHIN)).await;
            self.board.read(registry, second).await?
        } else {
            own.into_iter().collect()
        };
        if self.tended.is_none() {
            tracing::info!("this replica controls the rules that adapt");
        }
        let tended = self.tended.get_or_insert_default();
        let now = control.shared().resolver.clients.now();
        let changes = tended.observe(control.writer(), &seen, now);
        if !changes.is_empty() {
            let changes = self.lock.with(changes, now);
            let written = control.write(changes).await;
            self.lock.note(&written, now);
            written?;
        }
        Ok(())
    }

    /// Another replica controls, or nobody knows.
    fn rest(&mut self) {
        if self.tended.take().is_some() {
            self.control.shared().metrics.policies.show_blind(std::iter::empty());
        }
    }
}
