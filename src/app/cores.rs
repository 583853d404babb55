//! The data plane: one thread and one single-threaded runtime per core, each with its own store connection, its
//! own limiter and its share of the connections.
//!
//! A call stays on the core that its connection was dealt to; shared on its path are the policies and clients, the metrics,
//! and what is counted, remembered or leased in memory, under locks that are many. Measured against one runtime over all cores (`grpc.runtime: shared`, here
//! a single core with many threads) this decides 1.3 to 1.7 times as much per CPU second.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;

use super::error::AppError;
use super::process::Process;
use crate::edge::grpc::server::{ServeError, serve};
use crate::edge::grpc::settings::{GrpcSettings, RuntimeShape};
use crate::edge::listener::door::{Accepted, Door};

/// The running cores.
#[derive(Debug)]
pub(super) struct Cores {
    doors: Vec<UnboundedSender<Accepted>>,
    threads: Vec<JoinHandle<Result<(), ServeError>>>,
}

impl Cores {
    /// Starts the cores that the settings ask for.
    pub(super) fn start(process: &Arc<Process>) -> Result<Self, AppError> {
        let mut cores = Self { doors: Vec::new(), threads: Vec::new() };
        for core in 0..process.settings.grpc.runtimes() {
            let (door, arrivals) = unbounded_channel();
            cores.doors.push(door);
            cores.threads.push(spawn(core, arrivals, Arc::clone(process))?);
        }
        Ok(cores)
    }

    /// Where to hand connections to, one per core.
    pub(super) fn doors(&self) -> Vec<UnboundedSender<Accepted>> {
        self.doors.clone()
    }

    /// Waits for the cores to finish what is under way.
    pub(super) fn join(self) {
        drop(self.doors);
        for thread in self.threads {
            match thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "a core stopped"),
                Err(_) => tracing::error!("a core panicked"),
            }
        }
    }
}

fn spawn(
    core: usize,
    arrivals: UnboundedReceiver<Accepted>,
    process: Arc<Process>,
) -> Result<JoinHandle<Result<(), ServeError>>, AppError> {
    let system = |what| move |source| AppError::System { what, source };
    let runtime = runtime(&process.settings.grpc).map_err(system("a runtime"))?;
    // Stores may spawn onto the runtime that builds them: inside, but before the thread runs, so that a fault is told here.
    let rls = {
        let _inside = runtime.enter();
        process.rls()?
    };
    std::thread::Builder::new()
        .name(format!("tollgate-core-{core}"))
        .spawn(move || {
            runtime.block_on(async {
                let incoming = UnboundedReceiverStream::new(arrivals);
                let (health, stop) = (process.health.clone(), process.stop.clone());
                let message_bytes = process.settings.bounds.message_bytes;
                let bounds = process.listener_bounds(core);
                serve(incoming, rls, health, message_bytes, &bounds, stop).await
            })
        })
        .map_err(system("a thread"))
}

fn runtime(grpc: &GrpcSettings) -> io::Result<Runtime> {
    let mut builder = match grpc.runtime {
        RuntimeShape::PerCore => Builder::new_current_thread(),
        RuntimeShape::Shared => Builder::new_multi_thread(),
    };
    builder.worker_threads(grpc.threads()).thread_name("tollgate-worker").enable_all().build()
}

/// Deals the connections that come in at `door` to the cores in turn, until `stop`.
pub(super) async fn deal(
    door: Door,
    cores: Vec<UnboundedSender<Accepted>>,
    stop: CancellationToken,
) {
    for core in cores.iter().cycle() {
        let Some(accepted) = stop.run_until_cancelled(door.accept()).await else { return };
        // A core that has stopped drops its connections; the client comes back and meets another.
        let _ = core.send(accepted);
    }
}
