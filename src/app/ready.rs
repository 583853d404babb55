//! Notification that tollgate is ready: the ready file and the log line.

use std::fs;
use std::path::PathBuf;

use super::error::AppError;
use super::listen::Addresses;
use super::process::Process;

/// The file to write once tollgate is ready, if any.
#[derive(Clone, Debug, Default)]
pub struct ReadyFile(pub Option<PathBuf>);

impl ReadyFile {
    /// Writes the file atomically: a temporary file, then a rename.
    pub(super) fn write(&self, addresses: &Addresses) -> Result<(), AppError> {
        let Some(path) = &self.0 else { return Ok(()) };
        let failed = |source| AppError::ReadyFile { path: path.display().to_string(), source };
        let mut temporary = path.clone().into_os_string();
        temporary.push(".new");
        let text = serde_json::to_string(addresses).map_err(|e| failed(e.into()))?;
        fs::write(&temporary, text).map_err(failed)?;
        fs::rename(&temporary, path).map_err(failed)
    }
}

/// Logs the addresses, and an example request if no policy is configured.
pub(super) fn announce(process: &Process, at: &Addresses) {
    let snapshot = process.shared.policies.current();
    let store = if process.settings.redis.is_set() { "redis" } else { "memory" };
    tracing::info!(
        grpc = %at.grpc,
        admin = %at.admin,
        http = %at.http,
        store,
        domains = snapshot.policies.domains().len(),
        rules = snapshot.policies.rules().len(),
        "tollgate {} is ready",
        env!("CARGO_PKG_VERSION"),
    );
    let example = process.settings.policies.path.is_none() && !process.settings.xds.is_set();
    if example && process.settings.http.json {
        let scheme = if process.tls.http.is_some() { "https" } else { "http" };
        let request = r#"{"domain":"example","descriptors":[{"entries":[{"key":"api_key","value":"demo"}]}]}"#;
        tracing::info!(
            "serving the built-in example policy; set policies.path for your own. Try:\n  \
             curl -s {scheme}://{}/json -d '{request}'",
            at.http
        );
    }
}
