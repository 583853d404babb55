//! Signals, and the order in which tollgate stops: say NOT_SERVING, wait until callers have heard it, take no more
//! connections, finish the calls under way, exit 0.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic_health::ServingStatus;

use super::cores::Cores;
use super::error::AppError;
use super::process::Process;
use crate::edge::admin;
use crate::edge::grpc::server::HEALTH_NAMES;

/// SIGTERM and SIGINT.
#[derive(Debug)]
pub(super) struct Signals(Mutex<(Signal, Signal)>);

impl Signals {
    pub(super) fn install() -> Result<Self, AppError> {
        Ok(Self(Mutex::new((on(SignalKind::terminate())?, on(SignalKind::interrupt())?))))
    }

    /// Resolves at the next of them that comes later than [`SAME_REQUEST`] from now.
    async fn wait_again(&self) {
        let begun = Instant::now();
        loop {
            self.wait().await;
            if begun.elapsed() >= SAME_REQUEST {
                return;
            }
        }
    }

    /// Resolves at the next of them.
    pub(super) async fn wait(&self) {
        let mut signals = self.0.lock().await;
        let (term, int) = &mut *signals;
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    }
}

/// A repeat within this time is the same request: supervisors, and `timeout`, signal the process and its group.
const SAME_REQUEST: Duration = Duration::from_secs(1);

pub(super) fn on(kind: SignalKind) -> Result<Signal, AppError> {
    signal(kind).map_err(|source| AppError::System { what: "a signal handler", source })
}

/// Until it is ready nobody should be sent here: the health service begins with SERVING.
pub(super) async fn set_starting(process: &Process) {
    set(process, ServingStatus::NotServing).await;
}

pub(super) async fn set_serving(process: &Process) {
    set(process, ServingStatus::Serving).await;
    process.ready.store(true, Ordering::Relaxed);
}

fn health_names() -> impl Iterator<Item = &'static str> {
    HEALTH_NAMES.into_iter().chain(admin::SERVICE_NAMES)
}

async fn set(process: &Process, status: ServingStatus) {
    for name in health_names() {
        process.health.set_service_status(name, status).await;
    }
}

/// Ends the streams of those who watch health: they are calls that would never finish.
async fn forget(process: &Process) {
    let mut health = process.health.clone();
    for name in health_names() {
        health.clear_service_status(name).await;
    }
}

/// Drains; a second signal, or the drain timeout, ends it at once.
pub(super) async fn drain(
    process: &Arc<Process>,
    accepting: CancellationToken,
    cores: Cores,
    tasks: TaskTracker,
    signals: Signals,
) {
    let settings = &process.settings.grpc;
    process.ready.store(false, Ordering::Relaxed);
    set(process, ServingStatus::NotServing).await;
    tracing::info!(delay = ?settings.drain_delay, timeout = ?settings.drain_timeout, "draining");
    let finish = async {
        tokio::time::sleep(settings.drain_delay).await;
        forget(process).await;
        accepting.cancel();
        process.stop.cancel();
        tasks.close();
        let joined = tokio::task::spawn_blocking(move || cores.join());
        let _ = tokio::join!(joined, tasks.wait());
    };
    let limit = settings.drain_delay + settings.drain_timeout;
    tokio::select! {
        ended = tokio::time::timeout(limit, finish) => if ended.is_ok() {
            tracing::info!("stopped");
        } else {
            tracing::warn!("stopped with calls still under way after {limit:?}");
        },
        () = signals.wait_again() => tracing::warn!("stopped at once, at the second signal"),
    }
}
