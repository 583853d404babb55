//! What operators are told of connections: each thing once, however many connections to the same Redis there are.
//!
//! Every core has a connection of its own; when Redis is lost they all find out, and one line about it is enough.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::Arc;

use parking_lot::Mutex;

/// What was said since Redis was last reached. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Notices(Arc<Mutex<Said>>);

#[derive(Debug, Default)]
struct Said {
    connected: bool,
    reasons: BTreeSet<String>,
}

impl Notices {
    pub(super) fn connected(&self, redis: &impl Display) {
        let mut said = self.0.lock();
        if !said.connected || !said.reasons.is_empty() {
            *said = Said { connected: true, reasons: BTreeSet::new() };
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
