//! The errors with which the process ends.

use crate::control::layered::Refusal;
use crate::edge::grpc::server::ServeError;
use crate::redis::SetupError;
use crate::tls::TlsFault;

/// Failure to start or to serve.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The policies have faults.
    #[error(transparent)]
    Policies(#[from] Refusal),
    /// An address cannot be listened on.
    #[error(
        "cannot listen on {address} for {listener} ({source}); \
         free the port or set {setting} to another address"
    )]
    Listen {
        /// The listener.
        listener: &'static str,
        /// The address.
        address: String,
        /// The setting that names it.
        setting: &'static str,
        /// The error of the system.
        source: std::io::Error,
    },
    /// The settings lead to no Redis.
    #[error(transparent)]
    Redis(#[from] SetupError),
    /// The files for TLS of a listener cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsFault),
    /// The ready file cannot be written.
    #[error("cannot write the ready file {path}: {source}")]
    ReadyFile {
        /// The place.
        path: String,
        /// The error of the system.
        source: std::io::Error,
    },
    /// The system refuses a thread, a runtime or a signal handler.
    #[error("the system refuses {what}: {source}")]
    System {
        /// The thing that was asked for.
        what: &'static str,
        /// The error of the system.
        source: std::io::Error,
    },
    /// A server failed.
    #[error(transparent)]
    Serve(#[from] ServeError),
}
