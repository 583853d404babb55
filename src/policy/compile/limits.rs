//! From a limit as written to one that can be counted.

use std::sync::Arc;
use std::time::Duration;

use super::super::cost::Cost;
use super::super::report::Report;
use super::super::rule::{LimitKind, RuleLimit};
use super::super::schema::{self, Given};
use super::super::words::{ChargeName, Defaults, MethodName};
use super::{calendar, holds, lease, wait};
use crate::domain::{Algorithm, Charge, Limit, LimitError, Unit};
use crate::settings::Word;
use crate::yaml::quote;

/// The longest name of a limit, which Envoy copies into a response header, in bytes.
pub(crate) const LONGEST_NAME: usize = 128;

/// True if a name may be copied into a header as it is, between quotes.
pub(crate) fn fits_header(name: &str) -> bool {
    name.bytes().all(|byte| matches!(byte, b' '..=b'~') && !b"\"\\,;".contains(&byte))
}

/// The part of `name` that fits a header; an underscore stands for what does not.
fn fitted(name: &str) -> Arc<str> {
    let fit = |c: char| if fits_header(c.encode_utf8(&mut [0; 4])) { c } else { '_' };
    name.chars().map(fit).take(LONGEST_NAME).collect::<String>().into()
}

/// All limits of one node; nothing when one of them has a fault.
pub(super) fn compile_all(
    limits: &[schema::Limit],
    defaults: Defaults,
    report: &mut Report<'_>,
) -> Option<Vec<RuleLimit>> {
    let compiled: Vec<_> = limits.iter().map(|limit| compile(limit, defaults, report)).collect();
    let mut counted = Vec::new();
    for (written, limit) in limits.iter().zip(&compiled) {
        match limit.as_ref().map(|limit| &limit.kind) {
            Some(LimitKind::Unlimited) if limits.len() > 1 => {
                let hint = "remove it, or the other limits".to_owned();
                report.fault_with(written.at, "an unlimited limit beside others", hint);
            }
            Some(LimitKind::Counted { limit, .. }) => {
                // Two concurrency limits have one counter, however long a hold lasts.
                let period = if limit.is_concurrency() { Duration::ZERO } else { limit.period() };
                let counter = (std::mem::discriminant(&limit.algorithm()), period);
                if let Some((_, first)) = counted.iter().find(|(other, _)| *other == counter) {
                    let place = report.place(*first);
                    let seconds = limit.period().as_secs();
                    let message = format!("two limits with the same algorithm over {seconds} s");
                    report.fault_with(written.at, message, format!("the first is at {place}"));
                } else {
                    counted.push((counter, written.at));
                }
            }
            Some(LimitKind::Unlimited) | None => {}
        }
    }
    compiled.into_iter().collect()
}

fn compile(
    limit: &schema::Limit,
    defaults: Defaults,
    report: &mut Report<'_>,
) -> Option<RuleLimit> {
    let name = name(limit, report);
    let replaces = limit.replaces.iter().map(|(name, _)| fitted(name)).collect();
    let kind = match limit.unlimited.or(false) {
        Some(true) => unlimited(limit, report),
        Some(false) if limit.algorithm.good() == Some(MethodName::Concurrency) => {
            holds::concurrency(limit, report)
        }
        Some(false) => counted(limit, defaults, report),
        None => None,
    };
    Some(RuleLimit { name: name.ok()?, replaces, kind: kind? })
}

fn name(limit: &schema::Limit, report: &mut Report<'_>) -> Result<Option<Arc<str>>, ()> {
    let Some(Given { at, value, .. }) = &limit.name.0 else { return Ok(None) };
    let Some(name) = value.as_ref() else { return Err(()) };
    if !fits_header(name) {
        let hint = "use printable ASCII without quotes, backslash, comma and semicolon".to_owned();
        let message = format!("name {} does not fit a header", quote(name));
        report.lenient_fault(*at, message, hint);
    }
    if name.len() > LONGEST_NAME {
        let message = format!("name {} is longer than {LONGEST_NAME} bytes", quote(name));
        report.lenient_fault(*at, message, None);
    }
    if let Some((_, at)) = limit.replaces.iter().find(|(other, _)| other == name) {
        report.fault(*at, format!("limit {} replaces itself", quote(name)));
    }
    Ok((!name.is_empty()).then(|| fitted(name)))
}

fn unlimited(limit: &schema::Limit, report: &mut Report<'_>) -> Option<LimitKind> {
    let useless = [
        ("unit", limit.unit.key_at()),
        ("unit_multiplier", limit.unit_multiplier.key_at()),
        ("algorithm", limit.algorithm.key_at()),
        ("burst", limit.burst.key_at()),
        ("slots", limit.slots.key_at()),
        ("charge", limit.charge.key_at()),
        ("max_debt", limit.max_debt.key_at()),
        ("max_wait", limit.max_wait.key_at()),
        ("on_store_failure", limit.on_store_failure.key_at()),
        ("lease", limit.lease.as_ref().map(|given| given.key_at)),
        ("calendar", limit.calendar.as_ref().map(|given| given.key_at)),
        ("max", limit.max.key_at()),
        ("ttl", limit.ttl.key_at()),
        ("hold", limit.hold.as_ref().map(|given| given.key_at)),
        ("cost", limit.cost.key_at()),
    ];
    let mut clean = true;
    for (key, at) in useless {
        if let Some(at) = at {
            let hint = format!("remove {key}, or unlimited");
            report.fault_with(at, format!("{key} beside unlimited: true"), hint);
            clean = false;
        }
    }
    if let Some(at) = limit.requests_per_unit.key_at() {
        report.warn(at, "requests_per_unit means nothing beside unlimited: true", "remove it");
    }
    clean.then_some(LimitKind::Unlimited)
}

fn counted(
    written: &schema::Limit,
    defaults: Defaults,
    report: &mut Report<'_>,
) -> Option<LimitKind> {
    holds::refuse_keys_of_concurrency(written, report);
    let period = period(written, report);
    let requests = requests(written, report);
    let method = method(written, defaults, requests, report);
    let (algorithm, charge) = method?;
    // Without a period the shortest one shows what is wrong with the other numbers.
    let (unit, unit_multiplier) = period.unwrap_or((Unit::Second, 1));
    let limit = Limit::new(requests?, unit.period(unit_multiplier)?, algorithm, charge)
        .map_err(|error| refuse(written, error, report))
        .ok()?;
    period?;
    let on_store_failure = match &written.on_store_failure.0 {
        None => None,
        Some(given) => Some(given.value?),
    };
    let limit = wait::compile(written, limit, report).ok()?;
    let lease = lease::compile(written.lease.as_ref(), &limit, report).ok()?;
    let of_policy = (unit, unit_multiplier);
    let calendar = calendar::compile(written.calendar.as_ref(), &limit, of_policy, report).ok()?;
    let fixed = limit.algorithm() == Algorithm::FixedWindow;
    let calendar = calendar.or_else(|| defaults.calendar(of_policy).filter(|_| fixed));
    let limit = calendar.map_or(limit, |calendar| limit.on(calendar.unplaced()));
    let hold = holds::compile(written, &limit, lease.is_some(), report).ok()?;
    let cost = written.cost.or(Cost::Hits)?;
    let counted = LimitKind::Counted {
        limit,
        unit,
        unit_multiplier,
        on_store_failure,
        lease,
        calendar,
        hold,
        cost,
    };
    Some(counted)
}

fn period(limit: &schema::Limit, report: &mut Report<'_>) -> Option<(Unit, u32)> {
    if limit.unit.0.is_none() {
        let hint = "write unit: minute, or unlimited: true".to_owned();
        report.fault_with(limit.at, "unit is missing", hint);
    }
    let multiplier = limit.unit_multiplier.or(1)?;
    let shortest = limit.unit.good().unwrap_or(Unit::Second);
    if shortest.period(multiplier).is_none() {
        let most = Unit::MAX_PERIOD.as_secs() / shortest.seconds();
        let message = format!("unit_multiplier must be from 1 to {most} here, found {multiplier}");
        let at = limit.unit_multiplier.at().unwrap_or(limit.at);
        report.fault_with(at, message, "a period is at most ten years".to_owned());
        return None;
    }
    Some((limit.unit.good()?, multiplier))
}

/// Left out it is 0, as in other implementations of this format; that blocks, so it is worth a
/// warning.
fn requests(limit: &schema::Limit, report: &mut Report<'_>) -> Option<u32> {
    let Some(given) = &limit.requests_per_unit.0 else {
        let message = "requests_per_unit is missing, so this limit lets nothing pass";
        report.warn(limit.at, message, "write requests_per_unit: 0 if that is meant");
        return Some(0);
    };
    given.value
}

/// The algorithm with its numbers, and the charge; each option must belong to the algorithm.
fn method(
    limit: &schema::Limit,
    defaults: Defaults,
    requests: Option<u32>,
    report: &mut Report<'_>,
) -> Option<(Algorithm, Charge)> {
    let name = limit.algorithm.or(defaults.algorithm.into())?;
    let charge = limit.charge.or(defaults.charge)?;
    let bucket = name == MethodName::TokenBucket;
    let in_debt = charge != ChargeName::Admitted || limit.hold.is_some();
    let options = [
        ("burst", limit.burst.key_at(), bucket, "algorithm: token_bucket"),
        (
            "slots",
            limit.slots.key_at(),
            name == MethodName::SlidingWindow,
            "algorithm: sliding_window",
        ),
        (
            "max_debt",
            limit.max_debt.key_at(),
            bucket && in_debt,
            "algorithm: token_bucket, and charge: always or settled, or a hold",
        ),
    ];
    let mut clean = true;
    for (key, at, _, needs) in options.into_iter().filter(|(_, _, fits, _)| !fits) {
        if let Some(at) = at {
            let (name, charge) = (name.word(), charge.word());
            let message = format!("{key} with algorithm {name} and charge {charge}");
            report.fault_with(at, message, format!("{key} needs {needs}"));
            clean = false;
        }
    }
    if !clean {
        return None;
    }
    let burst = limit.burst.or(requests?)?;
    let algorithm = match name {
        MethodName::TokenBucket => Algorithm::TokenBucket { burst },
        MethodName::SlidingWindow => {
            let slots = limit.slots.or(Algorithm::DEFAULT_SLOTS)?;
            Algorithm::SlidingWindow { slots }
        }
        MethodName::FixedWindow => Algorithm::FixedWindow,
        MethodName::Concurrency => Algorithm::Concurrency,
    };
    let max_debt = match &limit.max_debt.0 {
        None => None,
        Some(given) => Some(given.value?),
    };
    let hold = limit.hold.as_ref().and_then(|given| given.value.as_ref());
    if limit.hold.is_some() && !hold.is_some_and(schema::Hold::is_unnamed) {
        return Some((algorithm, Charge::Held { max_debt }));
    }
    let charge = match charge.charge(max_debt, burst) {
        // Only a bucket has a bound.
        Charge::Always { .. } if !bucket => Charge::Always { max_debt: None },
        charge => charge,
    };
    Some((algorithm, charge))
}

fn refuse(limit: &schema::Limit, error: LimitError, report: &mut Report<'_>) {
    let at = match error {
        LimitError::Period => limit.unit.at(),
        LimitError::Fill | LimitError::Burst => limit.burst.at(),
        LimitError::Slots => limit.slots.at(),
    };
    let numbers = [
        ("requests_per_unit", limit.requests_per_unit.good()),
        ("burst", limit.burst.good()),
        ("slots", limit.slots.good()),
    ];
    let found = numbers.iter().filter_map(|(key, n)| n.map(|n| format!("{key}: {n}")));
    let message = format!("{error}, found {}", found.collect::<Vec<_>>().join(", "));
    report.fault(at.unwrap_or(limit.at), message);
}
