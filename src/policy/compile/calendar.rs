//! From a calendar as written to one that windows follow.

use super::super::calendar::{Calendar, Span};
use super::super::report::Report;
use super::super::schema::{self, Given};
use super::super::words::WeekdayName;
use crate::domain::{Algorithm, Limit, Unit};
use crate::settings::Word as _;
use crate::yaml::quote;

/// The time zone of calendars that name none.
const ZONE: &str = "UTC";

/// The calendar that is written beside `limit`, if there is one.
///
/// # Errors
/// Faults, which have been reported.
pub(super) fn compile(
    written: Option<&Given<schema::Calendar>>,
    limit: &Limit,
    period: (Unit, u32),
    report: &mut Report<'_>,
) -> Result<Option<Calendar>, ()> {
    let Some(Given { key_at, value, .. }) = written else { return Ok(None) };
    let Some(calendar) = value else { return Err(()) };
    if limit.algorithm() != Algorithm::FixedWindow {
        let hint = "calendar needs algorithm: fixed_window".to_owned();
        report.fault_with(*key_at, "calendar with an algorithm other than fixed_window", hint);
        return Err(());
    }
    let (unit, 1) = period else {
        let hint = "remove unit_multiplier, or calendar".to_owned();
        report.fault_with(*key_at, "calendar beside a unit_multiplier", hint);
        return Err(());
    };
    if calendar.unit.or(unit).ok_or(())? != unit {
        let message = format!("calendar of another unit than the limit's {}", unit.name());
        report.fault_with(calendar.at, message, "write the same unit, or none here".to_owned());
        return Err(());
    }
    let span = span(calendar, unit, report)?;
    let zone = match &calendar.zone.0 {
        None => ZONE,
        Some(given) => given.value.as_deref().ok_or(())?,
    };
    let found = Calendar::new(span, zone);
    if found.is_none() {
        let at = calendar.zone.at().unwrap_or(calendar.at);
        let hint = "write a name of the IANA time zone database, such as Europe/Berlin".to_owned();
        report.fault_with(at, format!("unknown time zone {}", quote(zone)), hint);
    }
    found.map(Some).ok_or(())
}

fn span(calendar: &schema::Calendar, unit: Unit, report: &mut Report<'_>) -> Result<Span, ()> {
    let day = calendar.anchor_day.or(1).ok_or(())?;
    let weekday = calendar.weekday.or(WeekdayName::Monday).ok_or(())?;
    let misfits = [
        ("anchor_day", calendar.anchor_day.key_at(), unit == Unit::Month, Unit::Month),
        ("weekday", calendar.weekday.key_at(), unit == Unit::Week, Unit::Week),
    ];
    for (key, at, fits, needed) in misfits {
        if let (Some(at), false) = (at, fits) {
            let hint = format!("{key} needs unit: {}", needed.word());
            report.fault_with(at, format!("{key} in a calendar of unit {}", unit.word()), hint);
            return Err(());
        }
    }
    match (unit, i8::try_from(day)) {
        (Unit::Day, _) => Ok(Span::Day),
        (Unit::Week, _) => Ok(Span::Week(weekday.into())),
        (Unit::Month, Ok(day @ 1..=31)) => Ok(Span::Month(day)),
        (Unit::Month, _) => {
            let at = calendar.anchor_day.at().unwrap_or(calendar.at);
            report.fault(at, format!("anchor_day must be from 1 to 31, found {day}"));
            Err(())
        }
        _ => {
            let hint = "a calendar needs unit: day, week or month".to_owned();
            report.fault_with(calendar.at, format!("calendar of unit {}", unit.word()), hint);
            Err(())
        }
    }
}
