//! Times of the protocol as text, and the present.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost_types::Timestamp;
use tollgate::domain::clock::{self, Clock as _, WallClock};

/// The present of this machine.
pub(super) fn now() -> Timestamp {
    to_pb(WallClock.now())
}

/// So long after the present.
pub(super) fn after(duration: Duration) -> Timestamp {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    to_pb(WallClock.now().plus_micros(micros))
}

fn to_pb(at: clock::Timestamp) -> Timestamp {
    let micros = at.as_micros();
    Timestamp {
        seconds: i64::try_from(micros / 1_000_000).unwrap_or(i64::MAX),
        nanos: (micros % 1_000_000 * 1_000) as i32,
    }
}

/// A time as RFC 3339, in UTC.
pub(super) fn text(at: &Timestamp) -> String {
    humantime::format_rfc3339(system_time(at)).to_string()
}

/// The same in whole seconds, for people.
pub(super) fn short(at: &Timestamp) -> String {
    humantime::format_rfc3339_seconds(system_time(at)).to_string()
}

fn system_time(at: &Timestamp) -> SystemTime {
    let seconds = u64::try_from(at.seconds).unwrap_or_default();
    let nanos = u32::try_from(at.nanos).unwrap_or_default();
    UNIX_EPOCH.checked_add(Duration::new(seconds, nanos)).unwrap_or(UNIX_EPOCH)
}

/// A time of RFC 3339, in UTC, rounded down to microseconds as the server does.
pub(super) fn parse(text: &str) -> Result<Timestamp, String> {
    let at: SystemTime = humantime::parse_rfc3339(text)
        .map_err(|error| format!("{text:?}: {error}; write a time such as 2030-01-01T00:00:00Z"))?;
    let since = at.duration_since(UNIX_EPOCH).map_err(|_| format!("{text:?} is before 1970"))?;
    let micros = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
    Ok(to_pb(clock::Timestamp::from_micros(micros)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_back() {
        for written in ["2030-01-01T00:00:00Z", "2026-11-26T15:12:01.250Z"] {
            assert_eq!(parse(&text(&parse(written).unwrap())), parse(written));
        }
        assert!(parse("tomorrow").unwrap_err().contains("2030"));
    }
}
