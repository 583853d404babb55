//! The head of a call: the headers that count.

use std::time::Duration;

use http::HeaderMap;
use tonic::Status;

use super::unary;
use crate::telemetry::traces::Trace;

/// The most digits of `grpc-timeout`.
const MAX_TIMEOUT_DIGITS: usize = 8;

/// The headers that a client sends alike with every call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    /// The time that the caller leaves for the store.
    pub(super) patience: Option<Duration>,
    /// The message is compressed, which is refused.
    compressed: bool,
}

impl Terms {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        Self { patience: patience(headers), compressed: unary::is_compressed(headers) }
    }
}

/// The head of a call.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) terms: Terms,
    /// The span of the call, if it is traced.
    pub(super) trace: Option<Box<Trace>>,
}

impl Head {
    pub(super) const fn new(terms: Terms, trace: Option<Box<Trace>>) -> Self {
        Self { terms, trace }
    }

    /// Refuses a call whose message cannot be read, whatever it is.
    pub(super) fn readable(&mut self) -> Result<(), Status> {
        if self.terms.compressed {
            Err(self.refuse("compressed", unary::compressed()))
        } else {
            Ok(())
        }
    }

    /// The refusal of the call with `status`.
    pub(super) fn refuse(&mut self, reason: &'static str, status: Status) -> Status {
        self.fail(reason);
        status
    }

    /// Marks the span of a call without a decision.
    pub(super) fn fail(&mut self, reason: &'static str) {
        if let Some(trace) = &mut self.trace {
            trace.fail(reason);
        }
    }
}

/// The time of the store for a caller that sent `grpc-timeout`: four fifths, as the answer must
/// travel, too.
///
/// Source: the gRPC over HTTP/2 specification: at most 8 digits and a unit. A value of more digits
/// counts as none: the time after it may be beyond any clock.
pub fn patience(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > MAX_TIMEOUT_DIGITS || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    let timeout = match unit {
        "H" => Duration::from_secs(value * 3_600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    };
    Some(timeout / 5 * 4)
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::store::Deadline;

    #[test]
    fn four_fifths_of_the_callers_timeout_are_for_the_store() {
        let table = [
            ("20m", Some(16_000)),
            ("50000u", Some(40_000)),
            ("1S", Some(800_000)),
            ("1M", Some(48_000_000)),
            ("", None),
            ("5", None),
            ("x5m", None),
            ("5µ", None),
            ("+5m", None),
            ("99999999H", Some(287_999_997_120_000_000)),
            ("100000000m", None),
            ("18446744073709551615H", None),
        ];
        for (text, micros) in table {
            let mut headers = HeaderMap::new();
            if let Ok(value) = text.parse() {
                headers.insert("grpc-timeout", value);
            }
            let patience = patience(&headers);
            assert_eq!(patience, micros.map(Duration::from_micros), "{text}");
            // No time of a caller is beyond the clock.
            let start = Instant::now();
            assert!(Deadline::after(start, Duration::from_secs(1), patience).due() >= start);
        }
    }
}
