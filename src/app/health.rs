//! Health of the process: over gRPC, and for the routes of HTTP.

use std::time::Duration;

use tonic_health::ServingStatus;

use super::process::Process;
use crate::edge::admin;
use crate::edge::grpc::server::HEALTH_NAMES;
use crate::edge::health::Readiness;

/// The interval at which the conditions are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Reports NOT_SERVING until the start is complete, because tonic-health starts as SERVING.
pub(super) async fn set_starting(process: &Process) {
    set(process, ServingStatus::NotServing).await;
}

/// Reports that the start is complete, as far as the conditions hold.
pub(super) async fn set_started(process: &Process) {
    report(process, condition(process)).await;
}

/// Reports that the process drains. No later report changes that.
pub(super) async fn set_draining(process: &Process) {
    report(process, Readiness::Draining).await;
}

/// Follows the conditions until it is dropped.
pub(super) async fn follow(process: &Process) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        report(process, condition(process)).await;
    }
}

/// Ends the health watch streams, which would otherwise never finish.
pub(super) async fn end_watches(process: &Process) {
    let mut health = process.health.clone();
    for name in names() {
        health.clear_service_status(name).await;
    }
}

fn condition(process: &Process) -> Readiness {
    let (settings, snapshot) = (&process.settings, process.shared.policies.current());
    if !snapshot.configured && !settings.policies.start_without {
        Readiness::NeverConfigured
    } else if settings.health.require_policies && snapshot.policies.domains().is_empty() {
        Readiness::NoPolicies
    } else if settings.health.require_store && !process.stores_up() {
        Readiness::NoStore
    } else {
        Readiness::Ready
    }
}

async fn report(process: &Process, readiness: Readiness) {
    let mut reported = process.reported.lock().await;
    if *reported == readiness || *reported == Readiness::Draining {
        return;
    }
    let is_start = *reported == Readiness::Starting;
    *reported = readiness;
    process.readiness.set(readiness);
    let ready = readiness == Readiness::Ready;
    set(process, if ready { ServingStatus::Serving } else { ServingStatus::NotServing }).await;
    match readiness {
        Readiness::Draining => {}
        Readiness::Ready if is_start => {}
        Readiness::Ready => tracing::info!("healthy again"),
        unhealthy => tracing::warn!(reason = unhealthy.text(), "not healthy"),
    }
}

fn names() -> impl Iterator<Item = &'static str> {
    HEALTH_NAMES.into_iter().chain(admin::SERVICE_NAMES)
}

async fn set(process: &Process, status: ServingStatus) {
    for name in names() {
        process.health.set_service_status(name, status).await;
    }
}
