//! The log lines about an outage, deduplicated over all connections to the same Redis.
//!
//! Every core has its own connection. When Redis goes down all of them fail, and one line for each
//! reason is enough. The outage is over when every connection is in use again. Outages that follow
//! within [`QUIET`] of the last line have none unless they last; the next line has their number.

use std::collections::BTreeSet;
use std::fmt::{self, Display};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::store::StoreError;

/// The shortest time between the lines of two outages.
const QUIET: Duration = Duration::from_secs(10);

/// Says how requests are decided without Redis.
type Describe = dyn Fn() -> String + Send + Sync;

/// The events logged since Redis was last used by all connections. Clones share them.
#[derive(Clone)]
pub struct Notices {
    logged: Arc<Mutex<Logged>>,
    without: Arc<Describe>,
}

#[derive(Debug, Default)]
struct Logged {
    /// Connections that are not in use.
    open: usize,
    /// True once every connection was in use.
    connected: bool,
    /// The begin of the outage.
    since: Option<Instant>,
    /// The reasons that have a line.
    reasons: BTreeSet<String>,
    /// The time of the first line of the last outage that has one.
    reported_at: Option<Instant>,
    /// Outages since without a line.
    unreported: u64,
    /// The errors when Redis was told hits, since the start.
    untold: BTreeSet<String>,
}

impl Notices {
    /// `without` says how requests are decided during an outage.
    pub fn new(without: impl Fn() -> String + Send + Sync + 'static) -> Self {
        Self { logged: Arc::default(), without: Arc::new(without) }
    }

    /// A connection is made. It is not in use yet.
    pub(super) fn join(&self) {
        self.logged.lock().open += 1;
    }

    /// A connection that was not in use ends.
    pub(super) fn leave(&self) {
        let mut logged = self.logged.lock();
        logged.open = logged.open.saturating_sub(1);
    }

    /// A connection is in use.
    pub(super) fn closed(&self, redis: &impl Display) {
        let mut logged = self.logged.lock();
        logged.open = logged.open.saturating_sub(1);
        if logged.open > 0 {
            return;
        }
        let first = !std::mem::replace(&mut logged.connected, true);
        let away = logged.since.take().map(|since| since.elapsed());
        let reported = !std::mem::take(&mut logged.reasons).is_empty();
        // A connection that is made while all others are in use ends no outage.
        logged.unreported += u64::from(!first && !reported && away.is_some());
        drop(logged);
        match away {
            _ if first => tracing::info!(%redis, "connected to Redis"),
            Some(away) if reported => tracing::info!(%redis, ?away, "Redis decides again"),
            _ => {}
        }
    }

    /// A connection is in use no more.
    pub(super) fn opened(&self, redis: &impl Display, reason: &str) {
        self.logged.lock().open += 1;
        self.failed(redis, reason);
    }

    /// Redis was told hits of an outage, and did not take them; they are told again or not.
    pub(super) fn untold(&self, redis: &impl Display, error: &StoreError, again: bool) {
        if !self.logged.lock().untold.insert(error.to_string()) {
            return;
        }
        if again {
            tracing::warn!(
                %redis, %error,
                "Redis does not take the hits of an outage yet; it is told again"
            );
        } else {
            tracing::warn!(
                %redis, %error,
                "Redis does not take the hits of an outage, so it may admit them once more"
            );
        }
    }

    /// Redis says that a call has keys of several slots, which is a fault of tollgate.
    pub(super) fn crossed(&self, redis: &impl Display, reason: &str) {
        if self.logged.lock().reasons.insert(reason.to_owned()) {
            tracing::error!(
                %redis, reason,
                "a call to the Redis Cluster had keys of several slots; this is a fault of \
                 tollgate, please report it"
            );
        }
    }

    /// The only server is a node of a cluster, and refuses keys of other nodes.
    pub(super) fn in_cluster(&self, redis: &impl Display, reason: &str) {
        let code = reason.split(' ').next().unwrap_or_default();
        if self.logged.lock().reasons.insert(code.to_owned()) {
            tracing::error!(
                %redis, reason,
                "Redis is a node of a Redis Cluster; set redis.topology: cluster"
            );
        }
    }

    /// A connection that is not in use has failed again.
    pub(super) fn failed(&self, redis: &impl Display, reason: &str) {
        let mut logged = self.logged.lock();
        let now = Instant::now();
        logged.since.get_or_insert(now);
        if logged.reasons.is_empty() {
            if logged.reported_at.is_some_and(|at| now < at + QUIET) {
                return;
            }
            logged.reported_at = Some(now);
        }
        if logged.reasons.insert(reason.to_owned()) {
            let unreported = std::mem::take(&mut logged.unreported);
            drop(logged);
            tracing::warn!(
                %redis, reason, without = (self.without)(), unreported,
                "Redis does not decide until it is back; check that it runs and is not \
                 overloaded, its address, user and password"
            );
        }
    }
}

impl Default for Notices {
    /// Names the failure mode.
    fn default() -> Self {
        Self::new(|| "the failure mode of each limit decides".to_owned())
    }
}

impl fmt::Debug for Notices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.logged.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn flapping_has_a_line_now_and_then() {
        let notices = Notices::default();
        let state = || {
            let logged = notices.logged.lock();
            (logged.reasons.len(), logged.unreported)
        };
        notices.join();
        notices.closed(&"redis");
        for flap in 0..50 {
            notices.opened(&"redis", "late");
            assert_eq!(state(), if flap == 0 { (1, 0) } else { (0, flap - 1) });
            notices.closed(&"redis");
            tokio::time::advance(QUIET / 100).await;
        }
        notices.opened(&"redis", "late");
        notices.failed(&"redis", "refused");
        assert_eq!(state(), (0, 49), "not yet");
        tokio::time::advance(QUIET).await;
        notices.failed(&"redis", "refused");
        notices.failed(&"redis", "refused");
        assert_eq!(state(), (1, 0), "an outage that lasts has a line");
        notices.closed(&"redis");
        assert_eq!(state(), (0, 0));
    }
}
