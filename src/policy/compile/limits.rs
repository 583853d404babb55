//! From a limit as written to one that can be counted.

use std::sync::Arc;

use super::super::fault::{At, Report, quote};
use super::super::rule::{LimitKind, RuleLimit};
use super::super::schema::{self, Field, Given, good};
use super::super::words::{AlgorithmName, ChargeName};
use crate::domain::{Algorithm, Charge, Limit, LimitError, Unit};

/// The longest name of a limit, which Envoy copies into a response header, in bytes.
const LONGEST_NAME: usize = 128;

/// How many bursts of debt a token bucket may go into unless a policy says otherwise.
const DEBT: u64 = 10;

/// All limits of one node; nothing when one of them has a fault.
pub(super) fn compile_all(
    limits: &[schema::Limit],
    default: AlgorithmName,
    report: &mut Report<'_>,
) -> Option<Vec<RuleLimit>> {
    let compiled: Vec<_> = limits.iter().map(|limit| compile(limit, default, report)).collect();
    let mut counted = Vec::new();
    for (written, limit) in limits.iter().zip(&compiled) {
        match limit.as_ref().map(|limit| &limit.kind) {
            Some(LimitKind::Unlimited) if limits.len() > 1 => {
                let hint = "remove it, or the other limits".to_owned();
                report.fault_with(written.at, "an unlimited limit beside others", hint);
            }
            Some(LimitKind::Counted { limit, .. }) => {
                let counter = (std::mem::discriminant(&limit.algorithm()), limit.period());
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
    default: AlgorithmName,
    report: &mut Report<'_>,
) -> Option<RuleLimit> {
    let name = name(limit, report);
    let replaces = limit.replaces.iter().map(|(name, _)| Arc::clone(name)).collect();
    let kind = match &limit.unlimited {
        None | Some(Given { value: Some(false), .. }) => counted(limit, default, report),
        Some(Given { value: Some(true), .. }) => unlimited(limit, report),
        Some(Given { value: None, .. }) => None,
    };
    Some(RuleLimit { name: name.ok()?, replaces, kind: kind? })
}

/// A name is copied into a header as it is, between quotes.
fn name(limit: &schema::Limit, report: &mut Report<'_>) -> Result<Option<Arc<str>>, ()> {
    let Some(Given { at, value, .. }) = &limit.name else { return Ok(None) };
    let Some(name) = value.as_ref() else { return Err(()) };
    let fits = |byte: u8| matches!(byte, b' '..=b'~') && !b"\"\\,;".contains(&byte);
    if !name.bytes().all(fits) {
        let hint = "use printable ASCII without quotes, backslash, comma and semicolon".to_owned();
        report.fault_with(*at, format!("name {} does not fit a header", quote(name)), hint);
        return Err(());
    }
    if name.len() > LONGEST_NAME {
        let message = format!("name {} is longer than {LONGEST_NAME} bytes", quote(name));
        report.fault(*at, message);
        return Err(());
    }
    if let Some((_, at)) = limit.replaces.iter().find(|(other, _)| other == name) {
        report.fault(*at, format!("limit {} replaces itself", quote(name)));
    }
    Ok((!name.is_empty()).then(|| Arc::clone(name)))
}

fn unlimited(limit: &schema::Limit, report: &mut Report<'_>) -> Option<LimitKind> {
    let useless = [
        ("unit", key_at(&limit.unit)),
        ("unit_multiplier", key_at(&limit.unit_multiplier)),
        ("algorithm", key_at(&limit.algorithm)),
        ("burst", key_at(&limit.burst)),
        ("slots", key_at(&limit.slots)),
        ("charge", key_at(&limit.charge)),
        ("max_debt", key_at(&limit.max_debt)),
        ("on_store_failure", key_at(&limit.on_store_failure)),
    ];
    let mut clean = true;
    for (key, at) in useless {
        if let Some(at) = at {
            let hint = format!("remove {key}, or unlimited");
            report.fault_with(at, format!("{key} beside unlimited: true"), hint);
            clean = false;
        }
    }
    if let Some(at) = key_at(&limit.requests_per_unit) {
        report.warn(at, "requests_per_unit means nothing beside unlimited: true", "remove it");
    }
    clean.then_some(LimitKind::Unlimited)
}

fn key_at<T>(field: &Field<T>) -> Option<At> {
    field.as_ref().map(|given| given.key_at)
}

fn counted(
    written: &schema::Limit,
    default: AlgorithmName,
    report: &mut Report<'_>,
) -> Option<LimitKind> {
    let period = period(written, report);
    let requests = requests(written, report);
    let method = method(written, default, requests, report);
    let ((unit, unit_multiplier), (algorithm, charge)) = (period?, method?);
    let period = unit.period(unit_multiplier)?;
    let limit = Limit::new(requests?, period, algorithm, charge)
        .map_err(|error| refuse(written, error, report))
        .ok()?;
    let on_store_failure = match &written.on_store_failure {
        None => None,
        Some(given) => Some(given.value?),
    };
    Some(LimitKind::Counted { limit, unit, unit_multiplier, on_store_failure })
}

fn period(limit: &schema::Limit, report: &mut Report<'_>) -> Option<(Unit, u32)> {
    let unit = match &limit.unit {
        Some(given) => given.value,
        None => {
            let hint = "write unit: minute, or unlimited: true".to_owned();
            report.fault_with(limit.at, "unit is missing", hint);
            None
        }
    };
    let Some(Given { at, value, .. }) = limit.unit_multiplier else { return Some((unit?, 1)) };
    let (unit, multiplier) = (unit?, value?);
    if unit.period(multiplier).is_none() {
        let most = Unit::LONGEST_PERIOD.as_secs() / unit.seconds();
        let message = format!("unit_multiplier must be from 1 to {most} here, found {multiplier}");
        report.fault_with(at, message, "a period is at most ten years".to_owned());
        return None;
    }
    Some((unit, multiplier))
}

/// Left out it is 0, as in other implementations of this format; that blocks, so it is worth a warning.
fn requests(limit: &schema::Limit, report: &mut Report<'_>) -> Option<u32> {
    let Some(given) = &limit.requests_per_unit else {
        let message = "requests_per_unit is missing, so this limit lets nothing pass";
        report.warn(limit.at, message, "write requests_per_unit: 0 if that is meant");
        return Some(0);
    };
    given.value
}

/// The algorithm with its numbers, and the charge; each option must belong to the algorithm.
fn method(
    limit: &schema::Limit,
    default: AlgorithmName,
    requests: Option<u32>,
    report: &mut Report<'_>,
) -> Option<(Algorithm, Charge)> {
    let name = limit.algorithm.as_ref().map_or(Some(default), |given| given.value)?;
    let charge = limit.charge.as_ref().map_or(Some(ChargeName::Admitted), |given| given.value)?;
    let bucket = name == AlgorithmName::TokenBucket;
    let always = charge == ChargeName::Always;
    let options = [
        ("burst", key_at(&limit.burst), bucket, "algorithm: token_bucket"),
        (
            "slots",
            key_at(&limit.slots),
            name == AlgorithmName::SlidingWindow,
            "algorithm: sliding_window",
        ),
        (
            "max_debt",
            key_at(&limit.max_debt),
            bucket && always,
            "algorithm: token_bucket and charge: always",
        ),
    ];
    let mut clean = true;
    for (key, at, _, needs) in options.into_iter().filter(|(_, _, fits, _)| !fits) {
        if let Some(at) = at {
            let charge = if always { "always" } else { "admitted" };
            let message = format!("{key} with algorithm {} and charge {charge}", name.name());
            report.fault_with(at, message, format!("{key} needs {needs}"));
            clean = false;
        }
    }
    if !clean {
        return None;
    }
    let burst = given_or(&limit.burst, requests)?;
    let algorithm = match name {
        AlgorithmName::TokenBucket => Algorithm::TokenBucket { burst },
        AlgorithmName::SlidingWindow => {
            let slots = given_or(&limit.slots, Some(Algorithm::DEFAULT_SLOTS))?;
            Algorithm::SlidingWindow { slots }
        }
        AlgorithmName::FixedWindow => Algorithm::FixedWindow,
    };
    let debt = given_or(&limit.max_debt, Some(DEBT * u64::from(burst)))?;
    let charge = match charge {
        ChargeName::Admitted => Charge::Admitted,
        ChargeName::Always => Charge::Always { max_debt: bucket.then_some(debt) },
    };
    Some((algorithm, charge))
}

/// The value as written, or the default where nothing was written.
fn given_or<T: Clone>(field: &Field<T>, default: Option<T>) -> Option<T> {
    if field.is_some() { good(field) } else { default }
}

fn refuse(limit: &schema::Limit, error: LimitError, report: &mut Report<'_>) {
    let at = match error {
        LimitError::Period => limit.unit.as_ref().map(|given| given.at),
        LimitError::Fill | LimitError::Burst => limit.burst.as_ref().map(|given| given.at),
        LimitError::Slots => limit.slots.as_ref().map(|given| given.at),
    };
    let numbers = [
        ("requests_per_unit", good(&limit.requests_per_unit)),
        ("burst", good(&limit.burst)),
        ("slots", good(&limit.slots)),
    ];
    let found = numbers.iter().filter_map(|(key, n)| n.map(|n| format!("{key}: {n}")));
    let message = format!("{error}, found {}", found.collect::<Vec<_>>().join(", "));
    report.fault(at.unwrap_or(limit.at), message);
}
