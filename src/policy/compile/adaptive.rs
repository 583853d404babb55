//! From the terms of a rule that adapts, as written, to those of its controller.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::super::report::Report;
use super::super::rule::{Rule, RuleLimit};
use super::super::schema::{self, Given};
use crate::adaptive::Terms;
use crate::domain::WHOLE;

/// The most rules that adapt: the signals of all are read every second.
const MAX_RULES: usize = 256;

const SHORTEST_P95: Duration = Duration::from_millis(1);
const LONGEST_P95: Duration = Duration::from_mins(1);
const SHORTEST_DRAIN: Duration = Duration::from_secs(1);
const LONGEST_DRAIN: Duration = Duration::from_mins(1);

/// The terms that are written beside `limits`, if there are some.
///
/// # Errors
/// Faults, which have been reported.
pub(super) fn compile(
    written: Option<&Given<schema::Adaptive>>,
    limits: &[RuleLimit],
    report: &mut Report<'_>,
) -> Result<Option<Terms>, ()> {
    let Some(Given { key_at, value, .. }) = written else { return Ok(None) };
    let Some(adaptive) = value else { return Err(()) };
    if limits.iter().all(RuleLimit::is_unlimited) {
        let hint = "remove adaptive, or write a limit".to_owned();
        report.fault_with(*key_at, "adaptive beside no limit that counts", hint);
        return Err(());
    }
    let defaults = Terms::default();
    let p95 = given(&adaptive.p95)?;
    let errors = given(&adaptive.errors)?;
    match (p95, errors) {
        (None, None) => {
            let hint = "write target: {p95: 300ms, errors: 5%}, or one of the two".to_owned();
            report.fault_with(adaptive.at, "adaptive without a target", hint);
            return Err(());
        }
        (None, Some(_)) => {
            let advice = "errors come late; add p95, the time that 95 % of requests may take";
            report.warn(*key_at, "adaptive by errors alone", advice);
        }
        _ => {}
    }
    within(&adaptive.p95, SHORTEST_P95..=LONGEST_P95, "p95", report)?;
    within(&adaptive.drain, SHORTEST_DRAIN..=LONGEST_DRAIN, "drain", report)?;
    let share = |field, default: u16| Ok(given(field)?.map_or(default, per_mille));
    let (min, max) = (share(&adaptive.min, defaults.min)?, share(&adaptive.max, defaults.max)?);
    if min > max {
        let hint = "write a min of at most max".to_owned();
        report.fault_with(adaptive.at, "min is above max", hint);
        return Err(());
    }
    Ok(Some(Terms {
        p95,
        errors,
        min,
        max,
        drain: given(&adaptive.drain)?.unwrap_or(defaults.drain),
        shadow: given(&adaptive.shadow)?.unwrap_or(defaults.shadow),
    }))
}

/// The value of a field, if it is there.
///
/// # Errors
/// It is there and wrong, which has been reported.
fn given<T: Clone>(field: &schema::Field<T>) -> Result<Option<T>, ()> {
    match &field.0 {
        None => Ok(None),
        Some(given) => given.value.clone().map(Some).ok_or(()),
    }
}

/// At least a thousandth.
fn per_mille(share: f64) -> u16 {
    ((share * f64::from(WHOLE)).round() as u16).clamp(1, WHOLE)
}

fn within(
    field: &schema::Field<Duration>,
    range: std::ops::RangeInclusive<Duration>,
    name: &str,
    report: &mut Report<'_>,
) -> Result<(), ()> {
    let Some((found, at)) = given(field)?.zip(field.at()) else { return Ok(()) };
    if range.contains(&found) {
        return Ok(());
    }
    let (least, most) = (range.start(), range.end());
    let message = format!("{name} must be from {least:?} to {most:?}, found {found:?}");
    report.fault_with(at, message, format!("write a time such as {name}: 3s"));
    Err(())
}

/// Reports too many rules that adapt, and two that handles cannot tell apart.
pub(super) fn check_all(rules: &[Arc<Rule>], report: &mut Report<'_>) {
    let adaptive = rules.iter().filter(|rule| rule.adaptive.is_some());
    if let Some(rule) = adaptive.clone().nth(MAX_RULES) {
        let hint = "remove adaptive where a limit is enough".to_owned();
        let message = format!("more than {MAX_RULES} rules that adapt");
        report.fault_with(report.at(&rule.place), message, hint);
    }
    let mut numbers = BTreeMap::new();
    for rule in adaptive {
        if let Some(other) = numbers.insert(rule.number(), &rule.label) {
            let message = format!("the rule {} has the number of {other}", rule.label);
            let hint = "rename a key or a value of one of them".to_owned();
            report.fault_with(report.at(&rule.place), message, hint);
        }
    }
}
