//! The header `grpc-timeout`, from its bytes to the deadline of the store.
//!
//! Input: the value of the header.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use tokio::time::Instant;
use tollgate::edge::grpc::head::patience;
use tollgate::store::Deadline;

/// The time that a store gets from a caller that does not say how long it waits.
const ALLOWANCE: Duration = Duration::from_millis(10);

/// A deadline no later than that of the caller; four fifths of a time that the specification knows.
pub fn run(data: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(data) else { return };
    let mut headers = HeaderMap::new();
    headers.insert("grpc-timeout", value);
    let patience = patience(&headers);
    assert_eq!(patience, expected(data), "{}", data.escape_ascii());

    let start = Instant::now();
    let due = Deadline::after(start, ALLOWANCE, patience).due();
    assert_eq!(due - start, patience.map_or(ALLOWANCE, |patience| patience.min(ALLOWANCE)));
}

/// The gRPC over HTTP/2 specification: one to eight digits, and a unit.
fn expected(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    let nanos: u128 = match unit {
        b'H' => 3_600_000_000_000,
        b'M' => 60_000_000_000,
        b'S' => 1_000_000_000,
        b'm' => 1_000_000,
        b'u' => 1_000,
        b'n' => 1,
        _ => return None,
    };
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = digits.iter().fold(0, |value, digit| value * 10 + u128::from(digit - b'0'));
    let timeout = value * nanos;
    let whole = Duration::from_secs((timeout / 1_000_000_000) as u64);
    let timeout = whole + Duration::from_nanos((timeout % 1_000_000_000) as u64);
    Some(timeout / 5 * 4)
}
