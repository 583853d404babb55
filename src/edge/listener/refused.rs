//! Connections that tollgate closes, and calls for which it has no memory: why, in metrics and in a
//! bounded number of log lines.

use std::collections::HashMap;
use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::telemetry::metrics::Metrics;

/// The minimum time between two log lines for the same reason.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// The reason why a connection is closed.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum Reason {
    /// A bound of the listener is reached.
    Bound,
    /// The handshake, or the first bytes, took too long.
    Late,
    /// The peer closed the connection during the handshake.
    Closed,
    /// No TLS on a listener with TLS.
    PlainText,
    /// TLS on a listener without.
    UnexpectedTls,
    /// No version of TLS from 1.2 on.
    OldVersion,
    /// No cipher, curve or protocol in common.
    Incompatible,
    /// No certificate where one is needed.
    NoCertificate,
    /// A certificate that has expired.
    Expired,
    /// A certificate of an authority that is not trusted.
    UnknownAuthority,
    /// A certificate without any of the names.
    WrongName,
    /// A certificate that cannot be used for another reason.
    BadCertificate,
    /// The peer does not accept the certificate of tollgate.
    RefusedByPeer,
    /// Anything else.
    Failed,
    /// A call finds no memory left, and its connection stays.
    NoMemory,
    /// An open connection whose peer does not read.
    SlowReader,
    /// An open connection whose peer does not answer a ping, or does not finish its headers.
    Silent,
    /// An open connection whose peer does not keep to HTTP/2, or takes too much of it.
    Protocol,
    /// A connection beyond its maximum age whose calls do not finish.
    Overstayed,
}

impl Reason {
    /// Those of open connections.
    const OF_OPEN: [Self; 4] = [Self::SlowReader, Self::Silent, Self::Protocol, Self::Overstayed];

    /// The value of the label `reason`.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Bound => "bound",
            Self::Late => "late",
            Self::Closed => "closed",
            Self::PlainText => "plain_text",
            Self::UnexpectedTls => "unexpected_tls",
            Self::OldVersion => "old_version",
            Self::Incompatible => "incompatible",
            Self::NoCertificate => "no_certificate",
            Self::Expired => "expired",
            Self::UnknownAuthority => "unknown_authority",
            Self::WrongName => "wrong_name",
            Self::BadCertificate => "bad_certificate",
            Self::RefusedByPeer => "refused_by_peer",
            Self::Failed => "failed",
            Self::NoMemory => "no_memory",
            Self::SlowReader => "slow_reader",
            Self::Silent => "silent",
            Self::Protocol => "protocol",
            Self::Overstayed => "overstayed",
        }
    }
}

/// A reason, and what an operator should know of it.
#[derive(Clone, Debug)]
pub(in crate::edge) struct Refusal {
    pub(super) reason: Reason,
    pub(super) text: String,
}

impl Refusal {
    pub(super) const fn new(reason: Reason, text: String) -> Self {
        Self { reason, text }
    }

    /// A handshake that took longer than `limit`.
    pub(super) fn late(limit: Duration) -> Self {
        let text = format!("the handshake took longer than listeners.handshake_timeout, {limit:?}");
        Self::new(Reason::Late, text)
    }
}

/// The refusals of one listener.
#[derive(Clone, Debug)]
pub(super) struct Refusals(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// The name of the listener in logs and metrics.
    listener: &'static str,
    metrics: Arc<Metrics>,
    warned: Mutex<HashMap<Reason, Warned>>,
}

/// The last log line for a reason.
#[derive(Debug)]
struct Warned {
    at: Instant,
    /// Refusals since then without a line.
    silent: u64,
}

impl Refusals {
    pub(super) fn new(listener: &'static str, metrics: Arc<Metrics>) -> Self {
        metrics.listeners.begin(listener, &Reason::OF_OPEN.map(Reason::label));
        Self(Arc::new(Shared { listener, metrics, warned: Mutex::default() }))
    }

    /// Counts the refusal of `peer`, and logs it unless a line for the same reason is recent.
    pub(super) fn note(&self, peer: SocketAddr, refusal: &Refusal) {
        let (listener, reason) = (self.0.listener, refusal.reason.label());
        self.0.metrics.listeners.refused(listener, reason);
        if let Some(silent) = self.due(refusal.reason) {
            tracing::warn!(
                listener, %peer, reason, silent,
                "a connection was closed: {}; tollgate_connections_refused_total counts them",
                refusal.text
            );
        }
    }

    /// Counts that the open connection of `peer` is closed, and logs it as [`Self::note`].
    pub(super) fn cut(&self, peer: SocketAddr, refusal: &Refusal) {
        let (listener, reason) = (self.0.listener, refusal.reason.label());
        self.0.metrics.listeners.cut(listener, reason);
        if let Some(silent) = self.due(refusal.reason) {
            tracing::warn!(
                listener, %peer, reason, silent,
                "an open connection was closed: {}; tollgate_connections_cut_total counts them",
                refusal.text
            );
        }
    }

    /// Counts a call of `peer` that finds no memory left, and logs it as [`Self::note`].
    pub(super) fn shed(&self, peer: SocketAddr, error: &impl Display) {
        let listener = self.0.listener;
        self.0.metrics.listeners.shed(listener);
        if let Some(silent) = self.due(Reason::NoMemory) {
            tracing::warn!(
                listener, %peer, silent,
                "a call was refused: {error}; tollgate_calls_shed_total counts them"
            );
        }
    }

    /// Logs that a connection could not be accepted at all.
    pub(super) fn not_accepted(&self, error: &std::io::Error) {
        if self.due(Reason::Failed).is_some() {
            let listener = self.0.listener;
            tracing::warn!(listener, %error, "a connection could not be accepted");
        }
    }

    /// The number of refusals that were not logged since the last line, if one is due.
    fn due(&self, reason: Reason) -> Option<u64> {
        let (now, mut warned) = (Instant::now(), self.0.warned.lock());
        let last = warned.get_mut(&reason);
        if let Some(last) = last
            && now < last.at + WARN_EVERY
        {
            last.silent += 1;
            return None;
        }
        let silent = warned.insert(reason, Warned { at: now, silent: 0 });
        Some(silent.map_or(0, |warned| warned.silent))
    }
}
