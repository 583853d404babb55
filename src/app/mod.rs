//! The composition root: settings in, a running service out, and the order in which it starts and
//! stops.
//!
//! The data plane runs on one thread per core (`cores`); everything else, admin, HTTP and
//! reloading, on the control runtime that calls [`run`].

mod administer;
mod checks;
mod cores;
mod deal;
mod drain;
mod error;
mod health;
mod listen;
mod modes;
mod process;
mod ready;
mod reload;
mod scales;
mod token_files;

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::cores::Cores;
use self::deal::deal;
pub use self::error::AppError;
use self::listen::Listeners;
use self::process::{Process, random_id};
pub use self::ready::ReadyFile;
use crate::config::{self, Settings};
use crate::control::feeds::files::FileFeed;
use crate::control::layered::{Layered, Origin, Replaced, Since};
use crate::domain::{Clock as _, WallClock};
use crate::edge::http::debug::Debug;
use crate::edge::http::{self, Ops};
use crate::events::Webhook;
use crate::limiter::key::OPEN_SECRETS;
use crate::policy::{Files, PolicySet, Source};
use crate::telemetry::logs::LogHandle;
use crate::telemetry::statsd;

/// The policies without a setting for them.
const EXAMPLE: &str = include_str!("../../deploy/policies/example.yaml");

/// Serves by `settings` until a signal says stop, then drains. `reread` reads the settings again on
/// SIGHUP.
pub async fn run(
    settings: Settings,
    logs: LogHandle,
    ready_file: ReadyFile,
    reread: impl Fn() -> Result<Settings, config::Faults> + Send + 'static,
) -> Result<(), AppError> {
    // Watched before they are read, so that no change falls between.
    let lenient = settings.policies.lenient;
    let feed = settings.policies.path.as_deref().map(|path| FileFeed::start(path, lenient));
    let (layered, set) = policies(&settings, feed.as_ref())?;
    if let Some(set) = &set {
        warn_of_open_secrets(&settings, set);
    }
    let listeners = Listeners::bind(&settings)?;
    let signals = drain::Signals::install()?;
    let process = Arc::new(Process::new(settings, set, layered)?);
    logs.count_in(process.metrics.output.lines_dropped.clone());
    process.check_redis().await?;
    health::set_starting(&process).await;
    let (tasks, accepting) = (TaskTracker::new(), CancellationToken::new());

    let cores = Cores::start(&process)?;
    let xds = reload::spawn_xds(&tasks, &process);
    let awaited = xds.filter(|_| !process.settings.policies.start_without);
    if awaited.is_none() {
        serve_grpc(&tasks, listeners.grpc, &process, &cores, &accepting);
    } else {
        // It was bound to know at once that it can be. Callers of a closed port know at once that
        // there is no decision.
        drop(listeners.grpc);
    }
    administer::spawn(&tasks, &process, listeners.admin, logs.clone());
    http(&tasks, listeners.http, (listeners.metrics, listeners.status), &process);
    debug(&tasks, listeners.debug, &process);
    statsd(&tasks, &process);
    reload::spawn(&tasks, Arc::clone(&process), feed, logs, reread)?;

    process.wait_for_stores().await;
    administer::wait_for_registry(&process).await;
    process.start.end();
    administer::join_replicas(&process).await;
    // Not before, so that the first warning has the modes that operators set.
    let reporting = Arc::clone(&process);
    tasks.spawn(
        async move { reporting.stop.run_until_cancelled(modes::run(&reporting.shared)).await },
    );
    if let Some(first) = awaited {
        tracing::info!("the gRPC port opens after the first response of the control plane");
        tokio::select! {
            () = first.settled() => {}
            () = signals.wait() => {
                drain::drain(&process, accepting, cores, tasks, signals).await;
                return Ok(());
            }
        }
        let listener = listen::reopen_grpc(listeners.addresses.grpc)?;
        serve_grpc(&tasks, listener, &process, &cores, &accepting);
    }
    webhook(&tasks, &process)?;
    let ticking = Arc::clone(&process);
    tasks.spawn(async move { ticking.stop.run_until_cancelled(tick(&ticking)).await });
    health::set_started(&process).await;
    let followed = Arc::clone(&process);
    tasks.spawn(async move { followed.stop.run_until_cancelled(health::follow(&followed)).await });
    ready_file.write(&listeners.addresses)?;
    ready::announce(&process, &listeners.addresses);
    signals.wait().await;
    drain::drain(&process, accepting, cores, tasks, signals).await;
    Ok(())
}

/// Tells the time to the ranks of callers, which read no clock on decisions, until it is dropped.
async fn tick(process: &Process) {
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    loop {
        seconds.tick().await;
        process.shared.top.tick();
    }
}

/// Starts to accept connections of callers.
fn serve_grpc(
    tasks: &TaskTracker,
    listener: TcpListener,
    process: &Process,
    cores: &Cores,
    accepting: &CancellationToken,
) {
    let acceptor = process.acceptor(listener, "grpc", process.tls.grpc.clone());
    tasks.spawn(deal(acceptor, cores.all(), accepting.clone()));
}

fn warn_of_open_secrets(settings: &Settings, set: &PolicySet) {
    let configured = settings.policies.path.is_some();
    let open = settings.general.sensitive_key.is_none();
    if configured && open && set.marks_sensitive() {
        tracing::warn!("{OPEN_SECRETS}");
    }
}

/// The policies of `feed`, or the built-in example if there is no other; `None`: they have faults
/// and the process starts all the same, or a control plane has yet to send them. Reads files:
/// blocks.
fn policies(
    settings: &Settings,
    feed: Option<&FileFeed>,
) -> Result<(Layered, Option<PolicySet>), AppError> {
    let mut layered = Layered::new(settings.policies.clone());
    if settings.xds.is_set() {
        layered = layered.awaiting(Origin::Xds);
        if feed.is_none() {
            return Ok((layered, None));
        }
    }
    let example = || Files::of(vec![Source::new("the built-in example", EXAMPLE)]);
    let files = feed.map_or_else(example, FileFeed::read);
    let since = Since { version: 1, at: WallClock.now() };
    let Replaced { set, warnings, .. } = match layered.replace(Origin::Files, &files, since) {
        Ok(replaced) => replaced,
        // An end would be followed by a start with the same files, and the next end.
        Err(refusal) if settings.policies.lenient => {
            tracing::error!("no policies, so that calls fail until they are mended: {refusal}");
            return Ok((layered, None));
        }
        Err(refusal) => return Err(refusal.into()),
    };
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    Ok((layered, Some(set)))
}

fn ops(process: &Arc<Process>) -> Ops<process::Store> {
    let (refreshed, checked) = (Arc::clone(process), Arc::clone(process));
    Ops {
        rls: process.rls(),
        metrics: Arc::clone(&process.metrics),
        readiness: Arc::clone(&process.readiness),
        callers: Arc::clone(&process.callers),
        refresh: Box::new(move || refreshed.refresh()),
        checks: Box::new(move || checks::all(&checked)),
    }
}

/// Starts the HTTP listener, and those for metrics and for the status page if there are such.
fn http(
    tasks: &TaskTracker,
    listener: TcpListener,
    (metrics, status): (Option<TcpListener>, Option<TcpListener>),
    process: &Arc<Process>,
) {
    let (bounds, ops) = (process.listener_bounds(0), Arc::new(ops(process)));
    if let Some(metrics) = metrics {
        let path = &process.settings.metrics.path;
        let (acceptor, routes) = (
            process.acceptor(metrics, "metrics", None),
            http::metrics_router(Arc::clone(&ops), path),
        );
        tasks.spawn(http::serve(acceptor, routes, bounds.clone(), process.stop.clone()));
    }
    if let Some(status) = status {
        let acceptor = process.acceptor(status, "status", None);
        let routes = http::status_router(Arc::clone(&ops));
        tasks.spawn(http::serve(acceptor, routes, bounds.clone(), process.stop.clone()));
    }
    let body_bytes = process.settings.bounds.message_bytes;
    let body_timeout = bounds.listener.message_timeout;
    let routes = http::router(ops, &process.settings.http, body_bytes, body_timeout);
    let acceptor = process.acceptor(listener, "http", process.tls.http.clone());
    tasks.spawn(http::serve(acceptor, routes, bounds, process.stop.clone()));
}

/// Starts the debug listener, if there is one.
fn debug(tasks: &TaskTracker, listener: Option<TcpListener>, process: &Arc<Process>) {
    let Some(listener) = listener else { return };
    let routes = Debug { shared: Arc::clone(&process.shared) }.routes();
    let acceptor = process.acceptor(listener, "debug", None);
    let bounds = process.listener_bounds(0);
    tasks.spawn(http::serve(acceptor, routes, bounds, process.stop.clone()));
}

/// Starts the delivery of events, if there is a webhook.
fn webhook(tasks: &TaskTracker, process: &Process) -> Result<(), AppError> {
    let settings = &process.settings.events.webhook;
    let source = format!("urn:tollgate:{:032x}", random_id());
    let Some(webhook) = Webhook::new(settings, source, process.metrics.events.clone())? else {
        return Ok(());
    };
    let events = process.shared.events.listen();
    tasks.spawn(webhook.run(events, process.stop.clone()));
    Ok(())
}

/// Starts the reports to statsd, if there is a server.
fn statsd(tasks: &TaskTracker, process: &Arc<Process>) {
    let settings = process.settings.statsd.clone();
    let Some(address) = settings.address.clone() else { return };
    let (metrics, stop) = (Arc::clone(&process.metrics), process.stop.clone());
    tasks.spawn(async move { statsd::run(&settings, address, metrics, stop).await });
}
