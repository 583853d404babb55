//! The way to connect to sentinels.

use std::sync::Arc;
use std::time::Duration;

use crate::redis::address::Address;
use crate::redis::line::{Line, Lines, Renewal};
use crate::redis::login::Login;
use crate::redis::open::open;
use crate::redis::refusal::Refusals;
use crate::redis::socket::Socket;
use crate::redis::tls::Tls;

/// The log-in, TLS and patience for connections to sentinels.
pub(in crate::redis) struct Access {
    pub(super) login: Login,
    tls: Option<Arc<Tls>>,
    /// For a connection, and for an answer.
    pub(super) timeout: Duration,
    /// The connections to sentinels, apart from those to Redis.
    lines: Lines,
    refusals: Arc<Refusals>,
}

impl Access {
    pub(in crate::redis) fn new(login: Login, tls: Option<Arc<Tls>>, timeout: Duration) -> Self {
        Self { login, tls, timeout, lines: Lines::default(), refusals: Arc::default() }
    }

    /// Connects to the sentinel at `address`.
    ///
    /// # Errors
    /// Fails with a reason for the operator.
    pub(super) async fn open(&self, address: &Address) -> Result<Box<dyn Socket>, String> {
        let refusals = Arc::clone(&self.refusals);
        let line: Arc<Line> = self.lines.add(address.clone(), Renewal::Reconnect, refusals);
        open(&line, self.tls.as_deref()).await
    }
}
