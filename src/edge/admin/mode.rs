//! `SetMode` and `ListModes`: the kill switch, typed by operators, and what it says.

use tonic::Status;

use super::auth::Who;
use super::convert;
use super::service::{Admin, corrupt, failed};
use super::violations::Violations;
use crate::control::audit;
use crate::control::record::{StoredMode, mode_key};
use crate::control::registry::{Change, Expect, Registry};
use crate::edge::pb::tollgate::v1 as pb;
use crate::edge::pb::tollgate::v1::list_modes_response::{DomainMode, Source};
use crate::limiter::mode::{InForce, ModeSource};
use crate::settings::Word;
use crate::store::LimitStore;
use crate::telemetry::escape::escape;

/// What is written for a domain without a mode of its own, by RPC.
const BY_SETTINGS: &str = "by settings";

/// Sets a mode, or forgets what was set.
pub(super) async fn set<R: Registry, S: LimitStore>(
    admin: &Admin<R, S>,
    who: &Who,
    request: pb::SetModeRequest,
) -> Result<pb::SetModeResponse, Status> {
    let mut violations = Violations::default();
    let most = admin.shared().bounds.key_bytes;
    if request.domain.len() > most {
        let found = request.domain.len();
        violations.add("domain", format!("has {found} bytes, but a request may have {most}"));
    }
    let mode = pb::Mode::try_from(request.mode).map(convert::mode_from_pb);
    if mode.is_err() {
        violations.add("mode", format!("has no value {}", request.mode));
    }
    violations.check()?;
    let mode = mode.unwrap_or_default();
    let stored = mode.map(|mode| StoredMode { mode, updated_at: admin.now() });
    let value = match stored {
        Some(stored) => Some(stored.write().map_err(|error| corrupt(&error))?),
        None => None,
    };
    let domain = request.domain.as_bytes();
    let change = Change { key: mode_key(domain), expect: Expect::Anything, value };
    let written = admin.write(vec![change]).await.map_err(|error| failed(&error))?;
    let before = written.before.first().and_then(Option::as_ref);
    let before = before.and_then(|record| StoredMode::read(&record.value).ok());
    let name = |stored: Option<StoredMode>| stored.map_or(BY_SETTINGS, |stored| stored.mode.word());
    let what = if domain.is_empty() { "all".to_owned() } else { escape(domain).to_string() };
    audit::changed(who, "set_mode", &what, name(before), name(stored));
    let shared = admin.shared();
    let in_force = if domain.is_empty() { shared.modes.global() } else { shared.modes.of(domain) };
    Ok(pb::SetModeResponse {
        mode: convert::mode(in_force).into(),
        domain_known: Some(domain.is_empty() || shared.knows(domain)),
    })
}

/// Lists the modes in force.
pub(super) fn list<R: Registry, S: LimitStore>(admin: &Admin<R, S>) -> pb::ListModesResponse {
    let modes = admin.shared().modes.modes().in_force();
    let listed = |own: InForce| DomainMode {
        domain: String::from_utf8_lossy(&own.domain).into_owned(),
        mode: convert::mode(own.mode).into(),
        source: match own.source {
            ModeSource::Settings => Source::Settings.into(),
            ModeSource::Operator => Source::Operator.into(),
        },
    };
    pb::ListModesResponse { modes: modes.into_iter().map(listed).collect() }
}
