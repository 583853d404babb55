//! Signals, and the drain: report NOT_SERVING, wait until callers have noticed, stop accepting
//! connections, finish the calls in flight, exit 0.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::administer;
use super::cores::Cores;
use super::error::AppError;
use super::health;
use super::process::Process;

/// SIGTERM and SIGINT.
#[derive(Debug)]
pub(super) struct Signals(Mutex<(Signal, Signal)>);

impl Signals {
    pub(super) fn install() -> Result<Self, AppError> {
        Ok(Self(Mutex::new((on(SignalKind::terminate())?, on(SignalKind::interrupt())?))))
    }

    /// Waits for the next signal that arrives later than [`SAME_REQUEST`] from now.
    async fn wait_again(&self) {
        let begun = Instant::now();
        loop {
            self.wait().await;
            if begun.elapsed() >= SAME_REQUEST {
                return;
            }
        }
    }

    /// Waits for the next signal.
    pub(super) async fn wait(&self) {
        let mut signals = self.0.lock().await;
        let (term, int) = &mut *signals;
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    }
}

/// Signals within this time count as one, because supervisors and `timeout` signal both the process
/// and its group.
const SAME_REQUEST: Duration = Duration::from_secs(1);

pub(super) fn on(kind: SignalKind) -> Result<Signal, AppError> {
    signal(kind).map_err(|source| AppError::System { what: "a signal handler", source })
}

/// Drains the process. A second signal or the drain timeout aborts the drain.
pub(super) async fn drain(
    process: &Arc<Process>,
    accepting: CancellationToken,
    cores: Cores,
    tasks: TaskTracker,
    signals: Signals,
) {
    let settings = &process.settings.grpc;
    health::set_draining(process).await;
    tracing::info!(delay = ?settings.drain_delay, timeout = ?settings.drain_timeout, "draining");
    let finish = async {
        tokio::time::sleep(settings.drain_delay).await;
        health::end_watches(process).await;
        accepting.cancel();
        process.stop.cancel();
        tasks.close();
        let joined = tokio::task::spawn_blocking(move || cores.join());
        let _ = tokio::join!(joined, tasks.wait());
        administer::leave_replicas(process).await;
        // The last, because calls in flight end their spans.
        if let Some(traces) = &process.traces {
            traces.flush().await;
        }
    };
    let limit = settings.drain_delay + settings.drain_timeout;
    tokio::select! {
        ended = tokio::time::timeout(limit, finish) => if ended.is_ok() {
            tracing::info!("stopped");
        } else {
            tracing::warn!("stopped with calls in flight after {limit:?}");
        },
        () = signals.wait_again() => tracing::warn!("stopped at once on the second signal"),
    }
}
