//! Run-time administration: the admin listener, and the tasks that follow the registry. They run on
//! the control runtime, apart from decisions.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use super::process::Process;
use crate::control::{adaptive, calendar, hold_keys, presence, probe, sweep};
use crate::edge::admin::{self, Admin, SERVICE_NAMES};
use crate::edge::grpc::server::serve_admin;
use crate::limiter::Shared;
use crate::telemetry::logs::LogHandle;

/// The store deadline of admin RPCs. Longer than for decisions, because operators prefer a late
/// answer to an error.
const STORE_DEADLINE: Duration = Duration::from_secs(1);
/// The interval at which the records of expired clients are deleted.
const SWEEP_EVERY: Duration = Duration::from_secs(30);
/// Maximum wait at start-up for the first answer of the registry.
const START_TIMEOUT: Duration = Duration::from_secs(1);

/// Starts the tasks that follow the registry and serve operators until the process stops.
pub(super) fn spawn(
    tasks: &TaskTracker,
    process: &Arc<Process>,
    listener: TcpListener,
    logs: LogHandle,
) {
    let following = Arc::clone(process);
    tasks.spawn(async move { following.stop.run_until_cancelled(follow(&following)).await });
    let inspecting = Arc::clone(process);
    tasks.spawn(async move { inspecting.stop.run_until_cancelled(inspecting.inspect()).await });
    let stopped = process.stop.clone().cancelled_owned();
    tasks.spawn(sweep::run(Arc::clone(&process.control), SWEEP_EVERY, stopped));
    let stopped = process.stop.clone().cancelled_owned();
    tasks.spawn(probe::run(Arc::clone(&process.control), stopped));
    let watching = Arc::clone(process);
    tasks.spawn(async move {
        watching.tls.watch(&watching.metrics.listeners, &watching.stop).await;
    });
    let beating = Arc::clone(process);
    tasks.spawn(async move { beating.stop.run_until_cancelled(beat(&beating)).await });
    let admin = Admin::new(Arc::clone(&process.control), process.limiter(), STORE_DEADLINE);
    let admin = admin.with_logs(logs).until(process.stop.clone());
    let routes = admin::routes(Arc::new(admin), process.guard.clone());
    let process = Arc::clone(process);
    tasks.spawn(async move {
        let acceptor = process.acceptor(listener, "admin", process.tls.admin.clone());
        let (health, bounds) = (process.health.clone(), process.listener_bounds(0));
        let stop = process.stop.clone();
        let served = serve_admin(acceptor, routes, &SERVICE_NAMES, health, bounds, stop).await;
        if let Err(error) = served {
            tracing::error!(%error, "the admin listener stopped");
        }
    });
}

/// Keeps the calendar clock and the operators' changes in step with the registry.
async fn follow(process: &Process) {
    let (control, calendar) = (&process.control, &process.calendar);
    let registry = &**control.registry();
    // First, because client expiry must not depend on the clock of this machine.
    if let Err(error) = calendar::correct(registry, calendar).await {
        tracing::warn!(
            %error,
            "the registry's clock cannot be read; until it can, client expiry uses the clock of \
             this machine"
        );
    }
    tokio::join!(
        control.follower().run(),
        calendar::run(registry, calendar, calendar::DEFAULT_EVERY)
    );
}

/// Keeps the count of the replicas, and the keys that they share.
async fn beat(process: &Process) {
    let registry = &**process.control.registry();
    let is_up = || process.stores_up();
    let Shared { holds, policies, .. } = &*process.shared;
    let have_holds = || policies.have_holds() && !holds.has_key_of_setting();
    tokio::join!(
        presence::run(registry, &process.replicas, &process.metrics, is_up),
        hold_keys::run(registry, holds, have_holds),
        adaptive::run(&*process.control, process.replicas.id())
    );
}

/// Takes part in the count of the replicas, and in their keys, before the first request.
pub(super) async fn join_replicas(process: &Process) {
    let registry = &**process.control.registry();
    presence::beat(registry, &process.replicas, &process.metrics).await;
    let Shared { holds, policies, .. } = &*process.shared;
    if policies.have_holds() && !holds.has_key_of_setting() {
        hold_keys::begin(registry, holds).await;
    }
}

/// Leaves the count of the replicas.
pub(super) async fn leave_replicas(process: &Process) {
    presence::leave(&**process.control.registry(), &process.replicas).await;
}

/// Waits for the first full read of the registry, so that operators' changes apply from the first
/// request. Gives up if the registry makes no progress, because it may be down.
pub(super) async fn wait_for_registry(process: &Process) {
    if !process.control.follower().tried(START_TIMEOUT).await {
        tracing::warn!("operators' changes are not all in force yet: the registry does not answer");
    }
}
