//! Reloading while traffic flows: policies when their files change or on SIGHUP, the log level and the mode on SIGHUP.
//!
//! On a fault the last good policies stay in force; a metric and the log say so.

use std::sync::Arc;

use tokio::signal::unix::SignalKind;
use tokio_util::task::TaskTracker;

use super::drain;
use super::error::AppError;
use super::process::Process;
use crate::config::{self, Settings};
use crate::control::feeds::files::Watcher;
use crate::policy::Files;
use crate::telemetry::logs::LogHandle;

/// Starts the task that reloads until the process stops.
pub(super) fn spawn(
    tasks: &TaskTracker,
    process: Arc<Process>,
    mut watcher: Option<Watcher>,
    logs: LogHandle,
    reread: impl Fn() -> Result<Settings, config::Faults> + Send + 'static,
) -> Result<(), AppError> {
    let mut hangup = drain::on(SignalKind::hangup())?;
    tasks.spawn(async move {
        loop {
            tokio::select! {
                () = process.stop.cancelled() => return,
                () = changed(watcher.as_mut()) => {}
                _ = hangup.recv() => reapply(&process, &logs, reread()),
            }
            reload(&process).await;
        }
    });
    Ok(())
}

async fn changed(watcher: Option<&mut Watcher>) {
    match watcher {
        Some(watcher) => watcher.changed().await,
        None => std::future::pending().await,
    }
}

/// Settings that change while tollgate runs. All others need a restart.
const RELOADED: [&str; 3] = ["mode", "modes", "log.level"];

/// Puts the settings in force that can change while tollgate runs, and names those that need a
/// restart.
fn reapply(process: &Process, logs: &LogHandle, settings: Result<Settings, config::Faults>) {
    match settings {
        Ok(settings) => {
            process.shared.modes.set_settings(&settings.modes());
            if let Err(error) = logs.set_level(settings.log.level.as_str()) {
                tracing::error!(%error, "the log level stays");
            }
            let (mode, modes) = (settings.general.mode, &settings.general.modes);
            let level = settings.log.level.as_str();
            tracing::info!(?mode, ?modes, level, "read mode, modes and log.level again");
            let mut changed = process.settings.changed(&settings);
            changed.retain(|key| !RELOADED.contains(&key.as_str()));
            if !changed.is_empty() {
                tracing::warn!(
                    settings = changed.join(", "),
                    "changed settings stay as they were until tollgate is restarted"
                );
            }
        }
        Err(faults) => tracing::error!("the settings stay as they are:\n{faults}"),
    }
}

async fn reload(process: &Process) {
    let Some(path) = process.settings.policies.path.clone() else { return };
    let mirror = Arc::clone(process.follower.mirror());
    let load = move || mirror.replace_files(Files::read(&[path]));
    match tokio::task::spawn_blocking(load).await {
        Ok(Ok((version, warnings))) => {
            for warning in &warnings {
                tracing::warn!("{warning}");
            }
            let rules = process.shared.policies.current().policies.rules().len();
            process.metrics.reloads_ok.inc();
            tracing::info!(version, rules, "policies reloaded");
        }
        Ok(Err(faults)) => {
            process.metrics.reloads_failed.inc();
            tracing::error!("the policies stay as they are; mend these faults:\n{faults}");
        }
        Err(error) => {
            process.metrics.reloads_failed.inc();
            tracing::error!(%error, "the policies stay as they are: reading them failed");
        }
    }
}
