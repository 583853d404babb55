//! `SetLogLevel`: the level of this replica's log, for a time or until a restart.

use std::time::Duration;

use tonic::Status;
use tracing::Level as Severity;

use super::convert;
use super::identity::Who;
use super::service::Admin;
use super::violations::Violations;
use crate::control::audit;
use crate::control::registry::Registry;
use crate::edge::pb::tollgate::v1 as pb;
use crate::store::LimitStore;
use crate::telemetry::escape::escape;
use crate::telemetry::logs::{AUDIT, Change, Level, LogHandle};

/// The level of the settings, in audit lines.
const BY_SETTINGS: &str = "by settings";

/// The longest time that a level may be set for.
const MAX_DURATION: Duration = Duration::from_hours(365 * 24);

/// Sets the level, or goes back to that of the settings.
pub(super) fn set<R: Registry, S: LimitStore>(
    admin: &Admin<R, S>,
    who: &Who,
    request: &pb::SetLogLevelRequest,
) -> Result<pb::SetLogLevelResponse, Status> {
    let Some(logs) = &admin.logs else {
        return Err(Status::failed_precondition("this replica has no log with a level"));
    };
    let mut violations = Violations::default();
    let wanted = (!request.level.is_empty()).then(|| Level::new(&request.level)).transpose();
    let wanted = wanted.map_err(|error| violations.add("level", error.to_string()));
    let duration = request.duration.as_ref().map(duration).transpose();
    let duration = duration.map_err(|error| violations.add("duration", error));
    if matches!((&wanted, &duration), (Ok(None), Ok(Some(_)))) {
        violations.add("duration", "needs a level: that of the settings has no end");
    }
    violations.check()?;
    let (wanted, duration) = (wanted.unwrap_or_default(), duration.unwrap_or_default());
    let previous = logs.level();
    let after = wanted.clone();
    let after = after.as_ref().map_or(BY_SETTINGS, Level::as_str);
    let line = || {
        let span =
            duration.map(|duration| format!(" for {}", humantime::format_duration(duration)));
        let after = format!("{}{}", escape(after.as_bytes()), span.unwrap_or_default());
        let before = escape(previous.as_str().as_bytes()).to_string();
        audit::changed_in_memory(who, "set_log_level", "log.level", &before, &after);
    };
    // One of the two levels may not let it pass.
    let first = tracing::enabled!(target: AUDIT, Severity::WARN);
    if first {
        line();
    }
    let change = logs.set_level(wanted).map_err(|error| Status::internal(error.to_string()))?;
    if !first {
        line();
    }
    let until = duration.map(|duration| {
        take_back_after(duration, logs.clone(), change);
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        convert::timestamp(admin.now().plus_micros(micros))
    });
    Ok(pb::SetLogLevelResponse {
        level: logs.level().as_str().to_owned(),
        previous: previous.as_str().to_owned(),
        until,
    })
}

fn duration(duration: &prost_types::Duration) -> Result<Duration, &'static str> {
    let duration = Duration::try_from(*duration).ok();
    let fits = |duration: &Duration| !duration.is_zero() && *duration <= MAX_DURATION;
    duration.filter(fits).ok_or("must be longer than 0 and at most 365 days")
}

/// Goes back to the level of the settings, unless another is set meanwhile.
fn take_back_after(duration: Duration, logs: LogHandle, change: Change) {
    tokio::spawn(async move {
        tokio::time::sleep(duration).await;
        let before = logs.level();
        if logs.take_back(change) {
            let before = escape(before.as_str().as_bytes()).to_string();
            let who = audit::TOLLGATE;
            audit::changed_in_memory(who, "set_log_level", "log.level", &before, BY_SETTINGS);
        }
    });
}
