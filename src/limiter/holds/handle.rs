//! The handle of a hold: text that a caller brings back when its request has ended.
//!
//! ```text
//! version 1 | key 1 | flags 1 | id 7 | at 7 | ttl varint | renewals varint | process 4
//! count 1
//! per claim: counter 8 | flags 1 | position 1 | hits varint | at - at of the handle zigzag varint
//! with the flag of reports: count 1 | per rule: number 4
//! MAC 16
//! ```
//! Numbers are big-endian, `at` is in microseconds and `ttl` in milliseconds. The MAC is half of an
//! HMAC-SHA-256 over the domain and all before it. A counter is named by a keyed fingerprint of its
//! key, so nothing in a handle is readable about a client. A handle is not bound to a replica, to a
//! connection, or to a version of the policies: any replica with the same keys settles it.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use crate::domain::{HoldId, Key, Timestamp};

const VERSION: u8 = 1;

/// The bytes of a MAC.
const MAC_BYTES: usize = 16;

/// The most bytes of text that are read.
const MAX_TEXT: usize = 4_096;

/// A claim was decided without the store.
const DEGRADED: u8 = 1;

/// The handle names rules that adapt.
const REPORTS: u8 = 1;

/// A hold.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Handle {
    /// Its id.
    pub id: HoldId,
    /// The time of the charge on the clock of the store.
    pub at: Timestamp,
    /// The time after which it ends by itself; whole milliseconds.
    pub ttl: Duration,
    /// The number of times that it was renewed. Each time the handle before is over.
    pub renewals: u32,
    /// The process that issued it.
    pub process: u32,
    /// The charges, in the order of the request.
    pub claims: Vec<HeldClaim>,
    /// The numbers of the rules that adapt to how the request fares.
    pub reports: Vec<u32>,
}

/// A charge that a hold has made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct HeldClaim {
    /// The fingerprint of the counter's key.
    pub counter: u64,
    /// The store was away: the process decided by its share.
    pub degraded: bool,
    /// The hits; 1 for a slot of a concurrency limit.
    pub hits: u64,
    /// The time of the charge; in a cluster each slot has its own.
    pub at: Timestamp,
    /// The position of the claim in its request, which the id of a slot has.
    pub position: u8,
}

impl Handle {
    /// The time at which the hold ends by itself.
    pub fn expires_at(&self) -> Timestamp {
        self.at.plus_micros(micros(self.ttl))
    }
}

/// A key that signs handles.
#[derive(Clone)]
pub struct HandleKey {
    id: u8,
    signing: Hmac<Sha256>,
    naming: Hmac<Sha256>,
}

impl fmt::Debug for HandleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandleKey").field("id", &self.id).finish_non_exhaustive()
    }
}

impl HandleKey {
    /// The key with this number, made of `secret`.
    pub fn new(id: u8, secret: &[u8]) -> Self {
        let derived = |purpose: &[u8]| {
            let mut mac = keyed(secret);
            mac.update(purpose);
            keyed(&mac.finalize().into_bytes())
        };
        Self { id, signing: derived(b"sign"), naming: derived(b"name") }
    }

    /// The number by which handles name it.
    pub const fn id(&self) -> u8 {
        self.id
    }

    /// The fingerprint of a counter.
    pub fn counter(&self, key: &Key) -> u64 {
        let mut mac = self.naming.clone();
        mac.update(key.as_bytes());
        let bytes = mac.finalize().into_bytes();
        bytes.first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
    }

    /// The text of `handle`, for holds of `domain`.
    pub fn write(&self, domain: &[u8], handle: &Handle) -> String {
        let flags = u8::from(!handle.reports.is_empty()) * REPORTS;
        let mut bytes = vec![VERSION, self.id, flags];
        put_seven(&mut bytes, handle.id.number());
        put_seven(&mut bytes, handle.at.as_micros());
        put_varint(&mut bytes, handle.ttl.as_millis() as u64);
        put_varint(&mut bytes, handle.renewals.into());
        bytes.extend_from_slice(&handle.process.to_be_bytes());
        bytes.push(handle.claims.len() as u8);
        for claim in &handle.claims {
            bytes.extend_from_slice(&claim.counter.to_be_bytes());
            bytes.push(u8::from(claim.degraded) * DEGRADED);
            bytes.push(claim.position);
            put_varint(&mut bytes, claim.hits);
            let delta = claim.at.as_micros().wrapping_sub(handle.at.as_micros()).cast_signed();
            put_varint(&mut bytes, zigzag(delta));
        }
        if !handle.reports.is_empty() {
            bytes.push(handle.reports.len() as u8);
            bytes.extend(handle.reports.iter().flat_map(|rule| rule.to_be_bytes()));
        }
        let mac = self.mac(domain, &bytes);
        bytes.extend_from_slice(mac.get(..MAC_BYTES).unwrap_or_default());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The hold of `text`; `None` if this key has not signed it for `domain`.
    pub fn read(&self, domain: &[u8], text: &[u8]) -> Option<Handle> {
        let bytes = decode(text)?;
        let (signed, mac) = bytes.split_at_checked(bytes.len().checked_sub(MAC_BYTES)?)?;
        let mut expected = self.signing.clone();
        update(&mut expected, domain, signed);
        expected.verify_truncated_left(mac).ok()?;
        let mut left = Left(signed);
        let [version, key, flags] = left.take()?;
        if [version, key] != [VERSION, self.id] || flags & !REPORTS != 0 {
            return None;
        }
        let id = HoldId::from_number(left.seven()?)?;
        let at = left.seven()?;
        let ttl = Duration::from_millis(left.varint()?);
        let renewals = u32::try_from(left.varint()?).ok()?;
        let process = u32::from_be_bytes(left.take()?);
        let [count] = left.take()?;
        let mut claims = Vec::with_capacity(count.into());
        for _ in 0..count {
            let counter = u64::from_be_bytes(left.take()?);
            let [flags, position] = left.take()?;
            let hits = left.varint()?;
            let delta = unzigzag(left.varint()?);
            let at = Timestamp::from_micros(at.wrapping_add_signed(delta));
            claims.push(HeldClaim { counter, degraded: flags & DEGRADED != 0, hits, at, position });
        }
        let mut reports = Vec::new();
        if flags & REPORTS != 0 {
            let [count] = left.take()?;
            for _ in 0..count {
                reports.push(u32::from_be_bytes(left.take()?));
            }
        }
        let at = Timestamp::from_micros(at);
        let handle = Handle { id, at, ttl, renewals, process, claims, reports };
        left.0.is_empty().then_some(handle)
    }

    fn mac(&self, domain: &[u8], signed: &[u8]) -> [u8; 32] {
        let mut mac = self.signing.clone();
        update(&mut mac, domain, signed);
        mac.finalize().into_bytes().into()
    }
}

/// The number of the key that has signed `text`, which is not verified.
pub(super) fn key_of(text: &[u8]) -> Option<u8> {
    match *decode(text)?.first_chunk()? {
        [VERSION, key] => Some(key),
        _ => None,
    }
}

fn decode(text: &[u8]) -> Option<Vec<u8>> {
    if text.len() > MAX_TEXT { None } else { URL_SAFE_NO_PAD.decode(text).ok() }
}

fn update(mac: &mut Hmac<Sha256>, domain: &[u8], signed: &[u8]) {
    mac.update(b"hold");
    mac.update(&(domain.len() as u64).to_be_bytes());
    mac.update(domain);
    mac.update(signed);
}

#[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
fn keyed(secret: &[u8]) -> Hmac<Sha256> {
    Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length")
}

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// The lowest seven bytes: 56 bits.
fn put_seven(bytes: &mut Vec<u8>, number: u64) {
    bytes.extend_from_slice(number.to_be_bytes().get(1..).unwrap_or_default());
}

fn put_varint(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

const fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)).cast_unsigned()
}

const fn unzigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -((number & 1).cast_signed())
}

/// Bytes that are not read yet.
struct Left<'a>(&'a [u8]);

impl Left<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }

    fn seven(&mut self) -> Option<u64> {
        let seven: [u8; 7] = self.take()?;
        Some(seven.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.take()?;
            number |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn handle(claims: usize) -> Handle {
        let at = Timestamp::from_micros(1_795_000_000_123_456);
        let claim = |i: usize| HeldClaim {
            counter: i as u64 * 0x1234_5678_9abc,
            degraded: i % 3 == 1,
            hits: 1 << (i % 40),
            at: Timestamp::from_micros(at.as_micros() + i as u64),
            position: i as u8,
        };
        let id = HoldId::from_random(0x12_3456_789a_bcde);
        let ttl = Duration::from_mins(10);
        let claims = (0..claims).map(claim).collect();
        Handle { id, at, ttl, renewals: 300, process: 77, claims, reports: Vec::new() }
    }

    #[test]
    fn handles_are_read_as_they_were_written_and_are_short() {
        let key = HandleKey::new(3, b"secret");
        for claims in [0, 1, 2, 128] {
            let text = key.write(b"llm", &handle(claims));
            assert_eq!(key.read(b"llm", text.as_bytes()), Some(handle(claims)));
            assert_eq!(key_of(text.as_bytes()), Some(3));
            assert!(text.len() <= 60 + 20 * claims, "{} for {claims}", text.len());
            let reported = Handle { reports: vec![7, u32::MAX], ..handle(claims) };
            let text = key.write(b"llm", &reported);
            assert_eq!(key.read(b"llm", text.as_bytes()), Some(reported));
        }
    }

    #[test]
    fn handles_of_other_domains_and_keys_are_refused() {
        let key = HandleKey::new(3, b"secret");
        let text = key.write(b"llm", &handle(1));
        assert_eq!(key.read(b"llm2", text.as_bytes()), None);
        assert_eq!(HandleKey::new(4, b"secret").read(b"llm", text.as_bytes()), None);
        assert_eq!(HandleKey::new(3, b"other").read(b"llm", text.as_bytes()), None);
        assert_eq!(key.read(b"llm", &text.as_bytes()[..text.len() - 2]), None);
    }

    proptest! {
        #[test]
        fn handle_with_another_character_is_refused(
            at in 0_usize..60, with in "[A-Za-z0-9_-]", claims in 1_usize..4
        ) {
            let key = HandleKey::new(3, b"secret");
            let text = key.write(b"llm", &handle(claims));
            let mut changed = text.clone();
            changed.replace_range(at..=at, &with);
            let read = key.read(b"llm", changed.as_bytes());
            prop_assert!(read.is_none() || changed == text);
        }

        #[test]
        fn any_bytes_are_a_handle_or_none(bytes in vec(any::<u8>(), 0..200)) {
            let key = HandleKey::new(3, b"secret");
            prop_assert_eq!(key.read(b"llm", &bytes), None);
            let _ = key_of(&bytes);
        }
    }
}
