//! The task that reads the map of slots from any node that answers.
//!
//! | cause | when |
//! |---|---|
//! | start | at once |
//! | a redirection | at once, at most every 100 ms |
//! | a node cannot be reached, or the cluster is down | every 250 ms +- 50 %, until that ends |
//! | none | every 30 s |

use std::future::Future;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use redis::Value;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::shared::Shared;
use super::slots::ranges;
use crate::redis::Address;

const LEAST: Duration = Duration::from_millis(100);
const TROUBLED: Duration = Duration::from_millis(250);
const CALM: Duration = Duration::from_secs(30);

/// The time that one node gets to answer, so that a frozen one does not hold the map up.
const PATIENCE: Duration = Duration::from_millis(500);

/// Asks a node for its map.
pub(crate) trait AskSlots: Send + Sync + 'static {
    /// The reply of the node at `address` to `CLUSTER SLOTS`.
    ///
    /// # Errors
    /// Fails with a reason for the operator.
    fn slots(&self, address: &Address) -> impl Future<Output = Result<Value, String>> + Send;
}

/// Keeps the map until it is dropped.
pub(super) async fn run(shared: Arc<Shared>, ask: impl AskSlots) {
    let random = RandomState::new();
    let mut reported = String::new();
    for turn in 0_usize.. {
        let read = read(&shared, &ask, turn).await;
        report(&shared, &read, &mut reported);
        let changed = read.as_ref().is_ok_and(|changed| *changed);
        shared.outcome.send_replace(Some(read.map(|_| ())));
        if changed {
            shared.end_trouble();
            shared.changes.send_modify(|changes| *changes += 1);
        }
        let last = Instant::now();
        let pause = if shared.is_troubled() || !shared.is_whole() {
            let share = random.hash_one(turn) % 1_001;
            TROUBLED.mul_f64(0.5 + share as f64 / 1_000.0)
        } else {
            CALM
        };
        tokio::select! {
            () = sleep(pause) => {}
            () = shared.wanted.notified() => sleep_until(last + LEAST).await,
        }
    }
}

/// Reads the map from the first node that answers. Returns true if it has changed.
async fn read(shared: &Shared, ask: &impl AskSlots, turn: usize) -> Result<bool, String> {
    let mut reasons = Vec::new();
    for node in shared.candidates(turn) {
        let answer = timeout(PATIENCE, ask.slots(&node)).await;
        let answer = answer.unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}")));
        match answer.and_then(|reply| ranges(reply, &node)) {
            // A node that was not introduced to the others knows of no slot.
            Ok(ranges) if ranges.is_empty() => reasons.push(format!("{node}: knows no slots")),
            Ok(ranges) => return Ok(shared.map.replace(&ranges)),
            Err(reason) => reasons.push(format!("{node}: {reason}")),
        }
    }
    Err(reasons.join("; "))
}

/// Logs each new reason for which the map cannot be read, and slots that no node has.
fn report(shared: &Shared, read: &Result<bool, String>, reported: &mut String) {
    let uncovered = shared.map.uncovered();
    let now = match read {
        Err(reason) => reason.clone(),
        Ok(_) if uncovered > 0 => format!("{uncovered} slots have no node"),
        Ok(_) => String::new(),
    };
    if now != *reported && !now.is_empty() {
        tracing::warn!(
            reason = now,
            "the Redis Cluster is not whole; counters that cannot be reached are decided without \
             it. Check that its nodes run, and redis.nodes"
        );
    }
    *reported = now;
}
