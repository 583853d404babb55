//! `SetScale` and `ListScales`: the part of its limits to which a rule is turned.

use tonic::Status;

use super::clients::stale;
use super::convert;
use super::identity::Who;
use super::service::{Admin, corrupt, failed};
use super::validate::Validator;
use super::violations::Violations;
use crate::control::audit::{self, Attempt};
use crate::control::registry::{Change, Expect, Registry, RegistryError};
use crate::domain::WHOLE;
use crate::edge::pb::tollgate::v1 as pb;
use crate::limits::scale::{MAX_PER_MILLE, MAX_REASON_BYTES};
use crate::limits::{Scale, ScaleKey, ScaleSource};
use crate::store::LimitStore;

/// The rules that an error names.
const MOST_NAMED: usize = 10;

/// Thousandths in a percent.
const PER_PERCENT: f64 = 10.0;

/// Turns a rule, or takes back what was set.
pub(super) async fn set<R: Registry, S: LimitStore>(
    admin: &Admin<R, S>,
    who: &Who,
    request: &pb::SetScaleRequest,
) -> Result<pb::SetScaleResponse, Status> {
    let (scale, expect) = valid(admin, request)?;
    let key = ScaleKey {
        source: ScaleSource::Operator,
        domain: request.domain.as_str().into(),
        rule: request.rule.as_str().into(),
    };
    let value = match &scale {
        Some(scale) => Some(scale.to_record().map_err(|error| corrupt(&error))?),
        None => None,
    };
    let change = Change { key: key.record_key(), expect, value };
    let after = scale.as_ref().map_or_else(|| audit::NOTHING.to_owned(), audit::scale_state);
    let attempt =
        Attempt::by(who).and("set_scale", audit::scale_title(&key), after, audit::scale_record);
    let written = match admin.write(attempt, vec![change]).await {
        Ok(written) => written,
        Err(RegistryError::Conflict { found, .. }) => return Err(stale(found, "etag")),
        Err(error) => return Err(failed(&error)),
    };
    let scale = scale.map(|scale| Scale { revision: written.mark.revision, ..scale });
    Ok(pb::SetScaleResponse {
        scale: scale.map(|scale| shown(admin, &key, &scale)),
        percent_in_force: in_force(admin, &key).map_or(100.0, |(percent, _)| percent),
    })
}

fn valid<R: Registry, S: LimitStore>(
    admin: &Admin<R, S>,
    request: &pb::SetScaleRequest,
) -> Result<(Option<Scale>, Expect), Status> {
    let (bounds, now) = (&admin.shared().bounds, admin.now());
    let mut validator = Validator { bounds, now, violations: Violations::default() };
    let expect = validator.etag(&request.etag, "etag");
    let expires_at = request
        .expires_at
        .as_ref()
        .map(|at| validator.future(at, "to end it now, set 0 percent", "expires_at"));
    let per_mille = (request.percent * PER_PERCENT).round();
    let most = if request.above_limits { MAX_PER_MILLE } else { WHOLE };
    let violations = &mut validator.violations;
    if !(0.0..=f64::from(most)).contains(&per_mille) || request.percent < 0.0 {
        let hint = if request.above_limits { "" } else { "; set above_limits for up to 1000" };
        let percent = f64::from(most) / PER_PERCENT;
        let found = request.percent;
        violations.add("percent", format!("found {found}, expected 0.1 to {percent}{hint}"));
    } else if per_mille == 0.0 && request.percent != 0.0 {
        violations.add("percent", "is below 0.1; a mode or a limit of 0 denies everything");
    }
    if request.reason.len() > MAX_REASON_BYTES {
        violations.add("reason", format!("has more than {MAX_REASON_BYTES} bytes"));
    }
    let writer = admin.control.writer();
    // What was set for a rule that is gone can be taken back.
    if per_mille != 0.0 && !writer.has_rule(&request.domain, &request.rule) {
        let rules = writer.rules_of(&request.domain);
        let named: Vec<&str> = rules.iter().take(MOST_NAMED).map(AsRef::as_ref).collect();
        let named = if named.is_empty() { "none".to_owned() } else { named.join(", ") };
        violations.add("rule", format!("is no rule of this domain; it has {named}"));
    }
    let (Some(expect), true) = (expect, validator.violations.is_empty()) else {
        return Err(validator.violations.into_status());
    };
    let scale = (per_mille > 0.0).then(|| Scale {
        per_mille: per_mille as u16,
        expires_at: expires_at.flatten(),
        reason: request.reason.clone(),
        shadow: false,
        updated_at: now,
        revision: 0,
    });
    Ok((scale, expect))
}

/// Lists what is set, of a domain or of all.
pub(super) async fn list<R: Registry, S: LimitStore>(
    admin: &Admin<R, S>,
    request: &pb::ListScalesRequest,
) -> Result<pb::ListScalesResponse, Status> {
    let stale = admin.read_once().await?;
    let now = admin.now();
    let is_asked = |(key, scale): &(ScaleKey, Scale)| {
        !scale.has_ended(now) && (request.domain.is_empty() || *key.domain == *request.domain)
    };
    let mut scales = admin.control.writer().scales();
    scales.retain(is_asked);
    scales.sort_by(|(one, _), (other, _)| {
        (&one.domain, &one.rule, one.source).cmp(&(&other.domain, &other.rule, other.source))
    });
    Ok(pb::ListScalesResponse {
        scales: scales.iter().map(|(key, scale)| shown(admin, key, scale)).collect(),
        warnings: stale.into_iter().collect(),
    })
}

/// The percentage of a rule that is in force, and who says so; none: all of it.
fn in_force<R: Registry, S: LimitStore>(
    admin: &Admin<R, S>,
    key: &ScaleKey,
) -> Option<(f64, ScaleSource)> {
    let dial = admin.shared().policies.scales.dial(&key.domain, &key.rule);
    let (per_mille, source) = dial.in_force(|| admin.now())?;
    Some((percent(per_mille), source))
}

/// Thousandths as a percentage.
pub(super) fn percent(per_mille: u16) -> f64 {
    f64::from(per_mille) / PER_PERCENT
}

fn shown<R: Registry, S: LimitStore>(
    admin: &Admin<R, S>,
    key: &ScaleKey,
    scale: &Scale,
) -> pb::Scale {
    let source = match key.source {
        ScaleSource::Operator => pb::scale::Source::Operator,
        ScaleSource::Controller => pb::scale::Source::Controller,
    };
    let counts = in_force(admin, key).is_some_and(|(_, source)| source == key.source);
    pb::Scale {
        domain: key.domain.to_string(),
        rule: key.rule.to_string(),
        percent: percent(scale.per_mille),
        source: source.into(),
        expires_at: scale.expires_at.map(convert::timestamp),
        reason: scale.reason.clone(),
        etag: convert::etag(scale.revision),
        updated_at: Some(convert::timestamp(scale.updated_at)),
        in_force: Some(counts && !scale.shadow),
        rule_known: Some(admin.control.writer().has_rule(&key.domain, &key.rule)),
    }
}
