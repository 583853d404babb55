//! The composition root: settings in, a running service out, and the order in which it starts and stops.
//!
//! The data plane runs on one thread per core (`cores`); everything else, admin, HTTP and reloading,
//! on the control runtime that calls [`run`].

mod administer;
mod cores;
mod drain;
mod error;
mod listen;
mod process;
mod ready;
mod reload;

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::cores::Cores;
pub use self::error::AppError;
use self::listen::Listeners;
use self::process::Process;
pub use self::ready::ReadyFile;
use crate::config::{self, Settings};
use crate::control::feeds::files::Watcher;
use crate::control::layered::Layered;
use crate::edge::http::{self, Ops};
use crate::limiter::key::OPEN_SECRETS;
use crate::policy::{Compiled, Files, Source};
use crate::telemetry::logs::LogHandle;

/// Served when no policies are configured.
const EXAMPLE: &str = include_str!("../../deploy/policies/example.yaml");

/// Serves by `settings` until a signal says stop, then drains. `reread` reads the settings again on SIGHUP.
pub async fn run(
    settings: Settings,
    logs: LogHandle,
    ready_file: ReadyFile,
    reread: impl Fn() -> Result<Settings, config::Faults> + Send + 'static,
) -> Result<(), AppError> {
    // Watched before they are read, so that no change falls between.
    let watcher = settings.policies.path.as_deref().map(Watcher::start);
    let (layered, compiled) = policies(&settings)?;
    for warning in &compiled.warnings {
        tracing::warn!("{warning}");
    }
    warn_of_open_secrets(&settings, &compiled);
    let listeners = Listeners::bind(&settings).await?;
    let signals = drain::Signals::install()?;
    let process = Arc::new(Process::new(settings, compiled.set, layered)?);
    drain::set_starting(&process).await;
    let (tasks, accepting) = (TaskTracker::new(), CancellationToken::new());

    let cores = Cores::start(&process)?;
    tasks.spawn(cores::deal(
        process.door(listeners.grpc, "grpc"),
        cores.doors(),
        accepting.clone(),
    ));
    administer::spawn(&tasks, &process, listeners.admin)?;
    tasks.spawn(http(listeners.http, ops(&process)?, Arc::clone(&process)));
    reload::spawn(&tasks, Arc::clone(&process), watcher, logs, reread)?;

    process.wait_for_stores().await;
    administer::wait_for_registry(&process).await;
    drain::set_serving(&process).await;
    ready_file.write(&listeners.addresses)?;
    ready::announce(&process, &listeners.addresses);
    signals.wait().await;
    drain::drain(&process, accepting, cores, tasks, signals).await;
    Ok(())
}

fn warn_of_open_secrets(settings: &Settings, compiled: &Compiled) {
    let configured = settings.policies.path.is_some();
    let open = settings.general.sensitive_key.is_none();
    if configured && open && compiled.set.marks_sensitive() {
        tracing::warn!("{OPEN_SECRETS}");
    }
}

/// The policies that `settings` name. Reads files: blocks.
fn policies(settings: &Settings) -> Result<(Layered, Compiled), AppError> {
    let files = match &settings.policies.path {
        Some(path) => Files::read(std::slice::from_ref(path)),
        None => Files::of(vec![Source::new("the built-in example", EXAMPLE)]),
    };
    Layered::new(files, settings.policies.clone()).map_err(AppError::Policies)
}

fn ops(process: &Arc<Process>) -> Result<Ops<process::Store>, AppError> {
    let refreshed = Arc::clone(process);
    Ok(Ops {
        rls: process.rls()?,
        metrics: Arc::clone(&process.metrics),
        ready: Arc::clone(&process.ready),
        refresh: Box::new(move || refreshed.refresh()),
    })
}

async fn http(listener: TcpListener, ops: Ops<process::Store>, process: Arc<Process>) {
    let bounds = process.listener_bounds(0);
    let body_bytes = process.settings.bounds.message_bytes;
    let routes = http::router(Arc::new(ops), body_bytes, bounds.listener.message_timeout);
    http::serve(process.door(listener, "http"), routes, bounds, process.stop.clone()).await;
}
