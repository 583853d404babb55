//! Run-time administration in this process: the admin listener, and the tasks that keep what operators changed in
//! force. All of it on the control runtime, away from decisions.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use super::error::AppError;
use super::process::Process;
use crate::config::Secret;
use crate::control::{calendar, sweep};
use crate::edge::admin::auth::Guard;
use crate::edge::admin::{self, Admin, SERVICE_NAMES};
use crate::edge::grpc::server::serve_admin;

/// The longest wait of an operator for the store: a slow answer is better than none.
const STORE_DEADLINE: Duration = Duration::from_secs(1);
/// The interval between two deletions of expired clients' records.
const SWEEP_EVERY: Duration = Duration::from_secs(30);
/// The longest silence of the registry that the start waits for.
const START_PATIENCE: Duration = Duration::from_secs(1);

/// Starts following the registry and serving operators, until the process stops.
pub(super) fn spawn(
    tasks: &TaskTracker,
    process: &Arc<Process>,
    listener: TcpListener,
) -> Result<(), AppError> {
    let following = Arc::clone(process);
    tasks.spawn(async move { following.stop.run_until_cancelled(follow(&following)).await });
    let stopped = process.stop.clone().cancelled_owned();
    tasks.spawn(sweep::run(Arc::clone(&process.control), SWEEP_EVERY, stopped));
    let admin = Admin::new(Arc::clone(&process.control), process.limiter()?, STORE_DEADLINE);
    let guard = Guard::new(process.settings.admin.token.as_ref().map(Secret::expose));
    let routes = admin::routes(Arc::new(admin), guard);
    let process = Arc::clone(process);
    tasks.spawn(async move {
        let door = process.door(listener, "admin");
        let (health, bounds) = (process.health.clone(), process.listener_bounds(0));
        let stop = process.stop.clone();
        let served = serve_admin(door, routes, &SERVICE_NAMES, health, bounds, stop).await;
        if let Err(error) = served {
            tracing::error!(%error, "the admin listener stopped");
        }
    });
    Ok(())
}

/// Keeps the calendar and what operators changed as the registry has them.
async fn follow(process: &Process) {
    let (control, calendar) = (&process.control, &process.calendar);
    let registry = &**control.registry();
    // First, so that no client is taken for expired, or not, by the clock of this machine.
    if let Err(error) = calendar::correct(registry, calendar).await {
        tracing::warn!(
            %error,
            "the clock of this machine decides when clients expire until that of the registry can be read"
        );
    }
    tokio::join!(
        control.follower().run(),
        calendar::run(registry, calendar, calendar::DEFAULT_EVERY)
    );
}

/// Waits until the registry was read once, so that the first requests meet what operators changed: as long as there is
/// more to read, but not long when nothing comes, as it may be away.
pub(super) async fn wait_for_registry(process: &Process) {
    if !process.control.follower().tried(START_PATIENCE).await {
        tracing::warn!("what operators changed is not all in force yet: the registry is silent");
    }
}
