//! TLS of a listener: certificates from files, which may change while tollgate runs.
//!
//! * [`settings`]: the sections of the three listeners. [`san`]: patterns for names of clients.
//! * `config`: the files as a configuration of rustls. `verifier`: who may call.
//! * `refusal`: why a handshake failed.

mod config;
mod refusal;
pub mod san;
pub mod settings;
mod verifier;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use self::config::Served;
use self::settings::ServerSettings;
use super::refused::Refusal;
use super::socket::Socket;
use crate::domain::{Clock as _, WallClock};
use crate::telemetry::metrics::{CertificateOf, ListenerMetrics};
use crate::tls::certificate::Names;
use crate::tls::{Reloaded, TlsFault};

/// The interval at which the files are read again. Reading and comparing is cheap, and sees every
/// way of replacing files, also that of Kubernetes, which swaps a directory.
const REREAD_EVERY: Duration = Duration::from_secs(5);
/// The time before the end of a certificate at which a warning begins.
const WARN_BEFORE: Duration = Duration::from_hours(30 * 24);
/// The interval of that warning.
const WARN_EVERY: Duration = Duration::from_hours(24);

/// The TLS of a listener.
#[derive(Debug)]
pub struct Tls {
    listener: &'static str,
    served: Reloaded<Served>,
}

/// A connection whose handshake is done.
pub(super) struct Established {
    pub(super) stream: Box<TlsStream<Socket>>,
    /// The names of the certificate of the client; `None` where none is asked for.
    pub(super) names: Option<Arc<Names>>,
}

impl Tls {
    /// Reads the files of `settings` for the listener called `listener`, which speaks `protocol`.
    /// Blocks for that.
    ///
    /// # Errors
    /// Fails with the setting and the reason if they cannot be used.
    pub(crate) fn new(
        listener: &'static str,
        whose: &'static str,
        protocol: &'static [u8],
        settings: &ServerSettings,
    ) -> Result<Self, TlsFault> {
        let (own, paths) = (settings.clone(), settings.paths.clone());
        let build = move |files: &_| config::build(files, &own, protocol);
        Ok(Self { listener, served: Reloaded::new(whose, paths, build)? })
    }

    /// Does the handshake on `stream` within `timeout`.
    pub(super) async fn accept(
        &self,
        stream: TcpStream,
        timeout: Duration,
    ) -> Result<Established, Refusal> {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.served.current().config));
        let handshake = tokio::time::timeout(timeout, acceptor.accept(Socket::new(stream)));
        let stream = match handshake.await {
            Ok(Ok(stream)) => Box::new(stream),
            Ok(Err(error)) => return Err(refusal::of(&error)),
            Err(_) => return Err(Refusal::late(timeout)),
        };
        let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let names = certificate.map(|certificate| Arc::new(Names::of(certificate)));
        Ok(Established { stream, names })
    }

    /// Reads the files again and again until `stop`, shows in `metrics` when certificates end, and
    /// warns of an end that is near.
    pub(crate) async fn watch(&self, metrics: &ListenerMetrics, stop: &CancellationToken) {
        let mut ticks = tokio::time::interval(REREAD_EVERY);
        let mut warned = None;
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            if self.served.reload().await {
                warned = None;
            }
            let served = self.served.current();
            metrics.show_end(self.listener, CertificateOf::Server, served.certificate_end);
            metrics.show_end(self.listener, CertificateOf::Clients, served.authorities_end);
            if warned.is_none_or(|at: tokio::time::Instant| at.elapsed() >= WARN_EVERY) {
                warned = Some(tokio::time::Instant::now());
                self.warn_of_ends(&served);
            }
        }
    }

    fn warn_of_ends(&self, served: &Served) {
        let listener = self.listener;
        for (setting, end) in [
            (served.certificate_setting, served.certificate_end),
            (served.authorities_setting, served.authorities_end),
        ] {
            let Some(left) = end.map(left) else { continue };
            if left.is_zero() {
                tracing::warn!(
                    listener,
                    "a certificate in {setting} has expired; callers refuse it or are refused"
                );
            } else if left <= WARN_BEFORE {
                let days = left.as_secs().div_ceil(24 * 3_600);
                let days = if days == 1 { "a day".to_owned() } else { format!("{days} days") };
                tracing::warn!(
                    listener,
                    "a certificate in {setting} expires within {days}; renew it: the file is read \
                     again without a restart"
                );
            }
        }
    }
}

/// The time from now to `end`, in seconds since 1970; zero if it is over.
fn left(end: i64) -> Duration {
    let now = WallClock.now().as_micros() / 1_000_000;
    Duration::from_secs(u64::try_from(end).unwrap_or(0).saturating_sub(now))
}

impl fmt::Debug for Established {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Established").field("names", &self.names).finish_non_exhaustive()
    }
}
