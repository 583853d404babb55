//! The log lines about an outage, deduplicated over all connections to the same Redis.
//!
//! Every core has its own connection. When Redis goes down all of them fail, and one line for each
//! reason is enough. The outage is over when every connection is in use again.

use std::collections::BTreeSet;
use std::fmt::{self, Display};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::store::StoreError;

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
    reasons: BTreeSet<String>,
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
        let away = logged.since.map(|since| since.elapsed());
        let first = !logged.connected;
        let untold = std::mem::take(&mut logged.untold);
        *logged = Logged { connected: true, untold, ..Logged::default() };
        drop(logged);
        match away {
            Some(away) if !first => tracing::info!(%redis, ?away, "Redis decides again"),
            _ => tracing::info!(%redis, "connected to Redis"),
        }
    }

    /// A connection is in use no more.
    pub(super) fn opened(&self, redis: &impl Display, reason: &str) {
        self.logged.lock().open += 1;
        self.failed(redis, reason);
    }

    /// Redis was told hits of an outage, and did not take them.
    pub(super) fn untold(&self, redis: &impl Display, error: &StoreError) {
        if self.logged.lock().untold.insert(error.to_string()) {
            tracing::warn!(
                %redis, %error,
                "Redis does not take the hits of an outage, so it may admit them once more"
            );
        }
    }

    /// A connection that is not in use has failed again.
    pub(super) fn failed(&self, redis: &impl Display, reason: &str) {
        let mut logged = self.logged.lock();
        logged.since.get_or_insert_with(Instant::now);
        if logged.reasons.insert(reason.to_owned()) {
            drop(logged);
            tracing::warn!(
                %redis, reason, without = (self.without)(),
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
