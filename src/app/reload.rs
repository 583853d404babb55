//! SIGHUP: opens the log files again, reads the log level, the mode, and the tokens and roles of
//! operators again, and asks for the policy files to be read again. Changed files of tokens take
//! effect without a signal.

use std::sync::Arc;

use tokio::signal::unix::SignalKind;
use tokio_util::task::TaskTracker;

use super::drain;
use super::error::AppError;
use super::process::Process;
use super::token_files::TokenFiles;
use crate::config::{self, Settings};
use crate::control::feeds;
use crate::control::feeds::files::FileFeed;
use crate::control::feeds::xds::{self, FirstResponse, Kept};
use crate::telemetry::logs::LogHandle;

/// Starts the tasks that bring changed policy files in force and answer SIGHUP, until the process
/// stops. Without `feed` there are no files.
pub(super) fn spawn(
    tasks: &TaskTracker,
    process: Arc<Process>,
    feed: Option<FileFeed>,
    logs: LogHandle,
    reread: impl Fn() -> Result<Settings, config::Faults> + Send + 'static,
) -> Result<(), AppError> {
    let mut hangup = drain::on(SignalKind::hangup())?;
    let files = feed.as_ref().map(FileFeed::reread);
    if let Some(feed) = feed {
        let (writer, stop) = (Arc::clone(process.control.writer()), process.stop.clone());
        tasks.spawn(async move { stop.run_until_cancelled(feeds::drive(feed, writer)).await });
    }
    let mut tokens = TokenFiles::new(&process.settings.admin);
    tasks.spawn(async move {
        loop {
            tokio::select! {
                () = process.stop.cancelled() => return,
                Some(()) = hangup.recv() => {
                    logs.reopen();
                    reapply(&process, &logs, reread());
                    if let Some(files) = &files {
                        files.request();
                    }
                }
                () = tokens.changed() => match reread() {
                    Ok(settings) => replace_tokens(&process, &settings),
                    Err(faults) => {
                        tracing::error!("the admin tokens stay as they are:\n{faults}");
                    }
                },
            }
        }
    });
    Ok(())
}

/// Starts the tasks that bring the policies of the control plane in force, until the process stops.
/// Returns its first response; none: there is no control plane.
pub(super) fn spawn_xds(tasks: &TaskTracker, process: &Process) -> Option<FirstResponse> {
    let merge_domains = process.settings.policies.merge_domains;
    let settings = &process.settings.xds;
    let prefix = &process.settings.redis.key_prefix;
    let connector = process.connector.as_ref().filter(|_| settings.keep_last);
    let kept = connector.map(|connector| Kept::new(connector, prefix, &settings.node_id));
    let (feed, subscription) = xds::feed(settings, merge_domains, &process.metrics, kept)?;
    let first = subscription.first();
    let (writer, stop) = (Arc::clone(process.control.writer()), process.stop.clone());
    tasks.spawn(async move { stop.run_until_cancelled(feeds::drive(feed, writer)).await });
    let stop = process.stop.clone();
    tasks.spawn(async move { stop.run_until_cancelled(subscription.run()).await });
    Some(first)
}

/// Settings that change while tollgate runs. All others need a restart.
const RELOADED: [&str; 10] = [
    "mode",
    "modes",
    "log.level",
    "log.denied",
    "admin.token",
    "admin.token_file",
    "admin.tokens",
    "admin.tokens_file",
    "admin.token_roles",
    "admin.san_roles",
];

/// Puts the settings in force that can change while tollgate runs, and names those that need a
/// restart.
fn reapply(process: &Process, logs: &LogHandle, settings: Result<Settings, config::Faults>) {
    match settings {
        Ok(settings) => {
            process.shared.modes.set_settings(&settings.modes());
            if let Err(error) = logs.apply(&settings.log) {
                tracing::error!(%error, "the log level stays");
            }
            replace_tokens(process, &settings);
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

/// Puts the tokens and roles of `settings` in force, unless that would open the listener: its
/// address and its TLS stay until a restart.
fn replace_tokens(process: &Process, settings: &Settings) {
    let (running, admin) = (&process.settings.admin, &settings.admin);
    let names: Vec<&str> = admin.named_tokens().map(|(name, _)| name).collect();
    let closed = running.listen.ip().is_loopback() || running.tls.client_ca_file.is_some();
    if names.is_empty() && !closed {
        let listen = running.listen;
        tracing::error!(%listen, "the admin tokens stay: without one the listener would be open");
        return;
    }
    process.guard.replace(admin);
    tracing::info!(names = names.join(", "), "read the admin tokens again");
}
