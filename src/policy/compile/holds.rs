//! From holds and concurrency limits as written to ones that can be counted.

use std::sync::Arc;
use std::time::Duration;

use super::super::cost::Cost;
use super::super::report::Report;
use super::super::rule::{Estimate, HoldTerms, LimitKind, Rule};
use super::super::schema::{self, DefaultEstimate, Given, OnUnknown, Signs};
use super::super::words::ChargeName;
use crate::domain::{Algorithm, Charge, Limit, SATURATION, Unit};
use crate::yaml::{At, quote};

/// The time after which a hold ends by itself, unless a policy says otherwise.
const HOLD_TTL: Duration = Duration::from_mins(10);

/// The same of a slot of a concurrency limit.
const SLOT_TTL: Duration = Duration::from_mins(1);

/// The share of requests that cost no more than what is reserved, unless a policy says otherwise.
const PERCENTILE: u64 = 95;

/// The share of the capacity that a learned estimate takes at most, unless a policy says otherwise.
const SHARE_OF_LEARNED: f64 = 0.25;

const SHORTEST_TTL: Duration = Duration::from_secs(1);
const LONGEST_TTL: Duration = Duration::from_hours(24);

/// A limit on requests at a time.
pub(super) fn concurrency(written: &schema::Limit, report: &mut Report<'_>) -> Option<LimitKind> {
    let of_rates = [
        ("unit", written.unit.key_at()),
        ("unit_multiplier", written.unit_multiplier.key_at()),
        ("requests_per_unit", written.requests_per_unit.key_at()),
        ("burst", written.burst.key_at()),
        ("slots", written.slots.key_at()),
        ("charge", written.charge.key_at()),
        ("max_debt", written.max_debt.key_at()),
        ("lease", written.lease.as_ref().map(|given| given.key_at)),
        ("calendar", written.calendar.as_ref().map(|given| given.key_at)),
        ("hold", written.hold.as_ref().map(|given| given.key_at)),
        ("cost", written.cost.key_at()),
    ];
    let mut clean = true;
    for (key, at) in of_rates {
        if let Some(at) = at {
            let hint = format!("remove {key}; a request takes one of max, for at most ttl");
            report.fault_with(at, format!("{key} with algorithm concurrency"), hint);
            clean = false;
        }
    }
    let Some(Given { value, .. }) = &written.max.0 else {
        let hint = "write the most requests at a time, such as max: 10".to_owned();
        report.fault_with(written.at, "max is missing", hint);
        return None;
    };
    let ttl = ttl(&written.ttl, SLOT_TTL, written.at, report);
    let (max, ttl) = ((*value)?, ttl?);
    let limit = Limit::new(max, ttl, Algorithm::Concurrency, Charge::Admitted).ok()?;
    let on_store_failure = match &written.on_store_failure.0 {
        None => None,
        Some(given) => Some(given.value?),
    };
    clean.then_some(LimitKind::Counted {
        limit,
        unit: Unit::Second,
        unit_multiplier: u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX),
        on_store_failure,
        lease: None,
        calendar: None,
        hold: None,
        cost: Cost::Hits,
    })
}

/// Signs must not be keys of the tree: their entries are taken out of descriptors.
pub(super) fn check_signs(signs: &Signs, rules: &[Arc<Rule>], report: &mut Report<'_>) {
    for (sign, name) in [("hold", &signs.hold), ("kind", &signs.kind), ("report", &signs.report)] {
        let has = |rule: &&Arc<Rule>| rule.path.iter().any(|entry| entry.key == *name);
        if let Some(rule) = rules.iter().find(has) {
            let message = format!("key {} is also the sign of a {sign}", quote(name));
            let hint = format!("write signs: {{{sign}: another-name}} at the top of the file");
            report.fault_with(report.at(&rule.place), message, hint);
        }
    }
}

/// Keys that mean nothing without `algorithm: concurrency`.
pub(super) fn refuse_keys_of_concurrency(written: &schema::Limit, report: &mut Report<'_>) {
    for (key, at) in [("max", written.max.key_at()), ("ttl", written.ttl.key_at())] {
        if let Some(at) = at {
            let hint = format!("{key} needs algorithm: concurrency");
            report.fault_with(at, format!("{key} with an algorithm that counts rates"), hint);
        }
    }
}

/// The terms of the hold that is written beside `limit`, if there is one.
///
/// # Errors
/// Faults, which have been reported.
pub(super) fn compile(
    written: &schema::Limit,
    limit: &Limit,
    leased: bool,
    report: &mut Report<'_>,
) -> Result<Option<HoldTerms>, ()> {
    let Some(Given { key_at, value, .. }) = &written.hold else { return Ok(None) };
    let Some(hold) = value else { return Err(()) };
    let charge = written.charge.0.as_ref().and_then(|given| given.value);
    if hold.is_unnamed() {
        return unnamed(written, hold, leased, report).map(Some);
    }
    let misfit = match charge {
        _ if leased => Some("lease"),
        Some(ChargeName::Always) => Some("charge: always"),
        Some(ChargeName::Settled) => Some("charge: settled"),
        Some(ChargeName::Admitted) | None => None,
    };
    if let Some(misfit) = misfit {
        let hint = format!("remove hold, or {misfit}");
        report.fault_with(*key_at, format!("hold beside {misfit}"), hint);
        return Err(());
    }
    let ttl = ttl(&hold.ttl, HOLD_TTL, hold.at, report).ok_or(())?;
    let (min, max) = (hold.min.or(1).ok_or(())?.max(1), hold.max.or(SATURATION).ok_or(())?);
    if min > max {
        let message = format!("min is {min}, above max, which is {max}");
        report.fault_with(hold.at, message, "write a min of at most max".to_owned());
        return Err(());
    }
    let estimate = estimate(hold, report)?;
    Ok(Some(HoldTerms {
        ttl,
        estimate,
        min: min.min(max),
        max: max.min(most_of(hold, estimate, limit, report)?),
        on_unknown: hold.on_unknown.or(OnUnknown::Keep).ok_or(())?,
        unnamed: false,
    }))
}

/// A hold without a handle.
fn unnamed(
    written: &schema::Limit,
    hold: &schema::Hold,
    leased: bool,
    report: &mut Report<'_>,
) -> Result<HoldTerms, ()> {
    let at = hold.unnamed.key_at().unwrap_or(hold.at);
    let charge = written.charge.0.as_ref().and_then(|given| given.value);
    if leased || charge != Some(ChargeName::Settled) {
        let hint = "write charge: settled, and no lease".to_owned();
        report.fault_with(at, "unnamed: true without charge: settled, or beside a lease", hint);
        return Err(());
    }
    if let Some(given) =
        written.cost.0.as_ref().filter(|given| matches!(given.value, Some(Cost::Fixed(_))))
    {
        let hint = "remove cost, or write a weight for each kind".to_owned();
        report.fault_with(given.key_at, "cost of so many hits beside unnamed: true", hint);
        return Err(());
    }
    let others = [
        ("max_share", hold.max_share.key_at()),
        ("on_unknown", hold.on_unknown.key_at()),
        ("min", hold.min.key_at()),
        ("max", hold.max.key_at()),
    ];
    for (key, at) in others {
        if let Some(at) = at {
            let hint = "an unnamed hold has ttl and estimate.default".to_owned();
            report.fault_with(at, format!("{key} beside unnamed: true"), hint);
            return Err(());
        }
    }
    let ttl = ttl(&hold.ttl, SLOT_TTL, hold.at, report).ok_or(())?;
    match estimate(hold, report)? {
        estimate @ Estimate::Hits(hits) if hits > 0 => {
            let on_unknown = OnUnknown::Keep;
            Ok(HoldTerms { ttl, estimate, min: hits, max: hits, on_unknown, unnamed: true })
        }
        _ => {
            let hint = "write estimate: {default: 1000}".to_owned();
            report.fault_with(at, "unnamed: true without an estimate of so many hits", hint);
            Err(())
        }
    }
}

fn estimate(hold: &schema::Hold, report: &mut Report<'_>) -> Result<Estimate, ()> {
    let default = match &hold.default.0 {
        None => hold.max.good().map(DefaultEstimate::Hits),
        Some(given) => Some(given.value.ok_or(())?),
    };
    let percentile = hold.percentile.or(PERCENTILE).ok_or(())?;
    if let Some(at) = hold.percentile.key_at().filter(|_| default != Some(DefaultEstimate::Learned))
    {
        let hint = "write default: learned, or remove percentile".to_owned();
        report.fault_with(at, "percentile beside an estimate that is not learned", hint);
        return Err(());
    }
    if !(1..=99).contains(&percentile) {
        let message = format!("percentile must be from 1 to 99, found {percentile}");
        report.fault(hold.percentile.at().unwrap_or(hold.at), message);
        return Err(());
    }
    Ok(match default {
        None => Estimate::Asked,
        Some(DefaultEstimate::Hits(hits)) => Estimate::Hits(hits),
        Some(DefaultEstimate::Learned) => Estimate::Learned(percentile as u8),
    })
}

/// The most that one request may reserve of the capacity. What is learned may be any number, so it
/// has a bound even if none is written.
fn most_of(
    hold: &schema::Hold,
    estimate: Estimate,
    limit: &Limit,
    report: &mut Report<'_>,
) -> Result<u64, ()> {
    let Some(given) = &hold.max_share.0 else {
        let is_learned = matches!(estimate, Estimate::Learned(_));
        let most = (limit.capacity() as f64 * SHARE_OF_LEARNED).floor() as u64;
        return Ok(if is_learned { most.max(1) } else { SATURATION });
    };
    let most = (limit.capacity() as f64 * given.value.ok_or(())?).floor() as u64;
    if most == 0 {
        let hint = "raise it, or the limit".to_owned();
        report.fault_with(given.at, "max_share of less than one hit", hint);
        return Err(());
    }
    Ok(most)
}

fn ttl(
    written: &schema::Field<Duration>,
    default: Duration,
    at: At,
    report: &mut Report<'_>,
) -> Option<Duration> {
    let ttl = written.or(default)?;
    if (SHORTEST_TTL..=LONGEST_TTL).contains(&ttl) {
        return Some(ttl);
    }
    let message = format!("ttl must be from 1s to 24h, found {ttl:?}");
    let hint = "it is the longest that a request takes, such as 10m".to_owned();
    report.fault_with(written.at().unwrap_or(at), message, hint);
    None
}
