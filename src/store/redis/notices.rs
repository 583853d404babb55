//! The log lines about connections, deduplicated over all connections to the same Redis.
//!
//! Every core has its own connection. When Redis goes down all of them fail, and one line is
//! enough.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::Arc;

use parking_lot::Mutex;

/// The events logged since Redis was last reached. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Notices(Arc<Mutex<Logged>>);

#[derive(Debug, Default)]
struct Logged {
    connected: bool,
    reasons: BTreeSet<String>,
}

impl Notices {
    pub(super) fn connected(&self, redis: &impl Display) {
        let mut logged = self.0.lock();
        if !logged.connected || !logged.reasons.is_empty() {
            *logged = Logged { connected: true, reasons: BTreeSet::new() };
            tracing::info!(%redis, "connected to Redis");
        }
    }

    pub(super) fn down(&self, redis: &impl Display, reason: &str) {
        if self.0.lock().reasons.insert(reason.to_owned()) {
            tracing::warn!(
                %redis, reason,
                "no connection to Redis: decisions follow the failure mode until it is back; \
                 check that it runs, its address, user and password"
            );
        }
    }
}
