//! `SetMode` and `ListModes`: the kill switch, typed by operators, and what it says.

use tonic::Status;

use super::convert;
use super::identity::Who;
use super::service::{Admin, corrupt};
use super::violations::Violations;
use crate::control::audit::{self, Attempt};
use crate::control::record::{StoredMode, mode_key};
use crate::control::registry::{Change, Expect, Registry};
use crate::edge::pb::tollgate::v1 as pb;
use crate::edge::pb::tollgate::v1::list_modes_response::{DomainMode, Source};
use crate::limiter::mode::{InForce, ModeSource};
use crate::store::LimitStore;

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
    let (what, after) = (audit::mode_title(domain), audit::mode_state(stored));
    let attempt = Attempt::by(who).and("set_mode", &what, after, audit::mode_record);
    // First in memory: in an emergency a registry that does not answer must not delay it.
    let before = admin.control.writer().set_mode(domain, stored, admin.now());
    let mut warnings = Vec::new();
    if let Err(error) = admin.write(attempt, vec![change]).await {
        let before = audit::mode_state(before);
        audit::changed_in_memory(who, "set_mode", &what, before, after);
        warnings.push(format!(
            "in force on this replica alone: {error}. It is stored when the registry takes writes \
             again, and lost by a restart before that. Call every replica"
        ));
    }
    let shared = admin.shared();
    let in_force = if domain.is_empty() { shared.modes.global() } else { shared.modes.of(domain) };
    Ok(pb::SetModeResponse {
        mode: convert::mode(in_force).into(),
        domain_known: Some(domain.is_empty() || shared.knows(domain)),
        warnings,
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
