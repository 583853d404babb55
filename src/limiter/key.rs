//! The name of a counter in every store.
//!
//! ```text
//! tollgate:1:{edge|api_key=acme|path~/files/*}:sliding_window:60s:10
//! prefix   |  domain  entries               |  algorithm      |   slots
//!          format version                   hash tag ends     period
//! ```
//!
//! Domain and entries are the hash tag of a Redis Cluster. The marks between key and value say how
//! the entry counts: `=` by its value, `~` by the pattern that all its values share, `#` by a keyed
//! hash of a sensitive value. Bytes that could be taken for a mark, and any that do not print, are
//! percent-escaped, so that different descriptors have different keys. Neither the limit's number
//! nor where the limit came from is in the key: hits used stay used when they change. The one
//! exception is a token bucket that a request brings along: its key ends in its number, as a bucket
//! drains at one rate.

use std::cell::RefCell;

use hmac::{Hmac, Mac as _};
use sha2::{Digest as _, Sha256};

use super::request::Entry;
use crate::domain::{Algorithm, Key, Limit};
use crate::policy::{How, PathEntry};

/// The format of keys and of the states behind them.
const FORMAT: &str = "1";

/// Domain and entries longer than this are cut, and end in a hash of the whole.
const LONGEST_TAG: usize = 256;
const KEPT_OF_LONG_TAG: usize = 128;

/// A bucket of ten years and the largest number.
const LONGEST_TAIL: usize = ":token_bucket:315360000s:4294967295".len();

/// A larger buffer of a thread is not kept.
const MAX_KEPT_BYTES: usize = 4 << 10;

thread_local!(static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) });

/// The descriptors that share a counter.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sharing {
    /// As the rule has it: values of a pattern may share one.
    Rule,
    /// It is the descriptor's own, as a client's is.
    Own,
}

/// Makes counter keys.
#[derive(Clone, Debug)]
pub struct KeyMaker {
    head: Box<[u8]>,
    hasher: SensitiveHasher,
}

impl KeyMaker {
    /// Keys that begin with `prefix`, in which `hasher` hides sensitive values.
    pub fn new(prefix: &str, hasher: SensitiveHasher) -> Self {
        Self { head: format!("{prefix}{FORMAT}:{{").into_bytes().into(), hasher }
    }

    /// Hides sensitive values.
    pub const fn hasher(&self) -> &SensitiveHasher {
        &self.hasher
    }

    /// The key of the counter that `tail` names for a descriptor that matches the rule of `stem`.
    pub fn key(&self, stem: &Stem, entries: &[Entry], sharing: Sharing, tail: &[u8]) -> Key {
        let mut parts = stem.entries.iter();
        self.write(&stem.domain, entries, tail, |key, entry| match parts.next() {
            Some(Part { head, value: Value::Fixed, .. }) => key.extend_from_slice(head),
            Some(Part { head, value: Value::Shared(pattern), .. }) if sharing == Sharing::Rule => {
                key.extend_from_slice(head);
                key.extend_from_slice(pattern);
            }
            Some(Part { head, sensitive, .. }) => {
                key.extend_from_slice(head);
                self.write_own(key, entry.value, *sensitive);
            }
            None => self.write_entry(key, entry, false),
        })
    }

    /// The same of a descriptor that no rule matches: each entry counts by its value, hashed where
    /// `sensitive` says so.
    pub fn key_by_values(
        &self,
        domain: &[u8],
        entries: &[Entry],
        mut sensitive: impl Iterator<Item = bool>,
        tail: &[u8],
    ) -> Key {
        self.write(&escaped(domain), entries, tail, |key, entry| {
            self.write_entry(key, entry, sensitive.next() == Some(true));
        })
    }

    /// `domain` is escaped.
    fn write(
        &self,
        domain: &[u8],
        entries: &[Entry],
        tail: &[u8],
        mut write_entry: impl FnMut(&mut Vec<u8>, &Entry),
    ) -> Key {
        let write = |key: &mut Vec<u8>| {
            key.clear();
            key.shrink_to(MAX_KEPT_BYTES);
            key.extend_from_slice(&self.head);
            key.extend_from_slice(domain);
            for entry in entries {
                write_entry(key, entry);
            }
            shorten(key, self.head.len());
            key.push(b'}');
            key.extend_from_slice(tail);
            Key::new(key.as_slice())
        };
        // A key has its bytes in one allocation of their size.
        BUFFER.with_borrow_mut(write)
    }

    fn write_entry(&self, key: &mut Vec<u8>, entry: &Entry, sensitive: bool) {
        key.push(b'|');
        escape_into(key, entry.key);
        self.write_own(key, entry.value, sensitive);
    }

    fn write_own(&self, key: &mut Vec<u8>, value: &[u8], sensitive: bool) {
        if sensitive {
            key.push(b'#');
            key.extend_from_slice(self.hasher.hash(value).as_bytes());
        } else {
            key.push(b'=');
            escape_into(key, value);
        }
    }
}

/// The parts of the keys of a rule that no request changes.
#[derive(Debug)]
pub struct Stem {
    /// The domain, escaped.
    domain: Box<[u8]>,
    /// By entry.
    entries: Box<[Part]>,
}

#[derive(Debug)]
struct Part {
    /// The entry up to what a request changes, escaped.
    head: Box<[u8]>,
    value: Value,
    /// A value that stands by itself is hashed.
    sensitive: bool,
}

#[derive(Debug)]
enum Value {
    /// Always the same, and part of the head.
    Fixed,
    /// This pattern for all values, with its mark; of a client by its value.
    Shared(Box<[u8]>),
    /// By itself.
    Own,
}

impl Stem {
    /// The stem of a rule of `domain` with this path.
    pub fn new(domain: &[u8], path: &[PathEntry]) -> Self {
        Self { domain: escaped(domain).into(), entries: path.iter().map(Part::new).collect() }
    }
}

impl Part {
    fn new(entry: &PathEntry) -> Self {
        let mut head = vec![b'|'];
        escape_into(&mut head, entry.key.as_bytes());
        let value = match (&entry.how, shared_pattern(entry)) {
            (_, Some(pattern)) => {
                Value::Shared([&b"~"[..], &escaped(pattern.as_bytes())].concat().into())
            }
            (How::Exact(value), None) if !entry.sensitive => {
                head.push(b'=');
                escape_into(&mut head, value.as_bytes());
                Value::Fixed
            }
            (How::Exact(_) | How::Pattern(_) | How::Any, None) => Value::Own,
        };
        Self { head: head.into(), value, sensitive: entry.sensitive }
    }
}

/// The pattern whose values share one counter.
pub(super) fn shared_pattern(path: &PathEntry) -> Option<&str> {
    match &path.how {
        How::Pattern(pattern) if path.share => Some(pattern),
        How::Pattern(_) | How::Exact(_) | How::Any => None,
    }
}

/// The part of a key after the hash tag: what kind of counter it is.
///
/// Without the formatting machinery: every decision about a client makes one.
pub fn tail(limit: &Limit) -> Vec<u8> {
    let mut tail = Vec::with_capacity(LONGEST_TAIL);
    if let Some(windows) = limit.windows() {
        tail.extend_from_slice(b":calendar:");
        tail.extend_from_slice(windows.name().as_bytes());
        return tail;
    }
    let (name, slots) = match limit.algorithm() {
        Algorithm::TokenBucket { .. } => (&b":token_bucket:"[..], None),
        Algorithm::SlidingWindow { slots } => (&b":sliding_window:"[..], Some(slots)),
        Algorithm::FixedWindow => (&b":fixed_window:"[..], None),
        // Holds stay held when the time to live changes.
        Algorithm::Concurrency => return b":concurrency".to_vec(),
    };
    tail.extend_from_slice(name);
    write_number(&mut tail, limit.period().as_secs());
    tail.push(b's');
    if let Some(slots) = slots {
        tail.push(b':');
        write_number(&mut tail, slots.into());
    }
    tail
}

/// The same of a limit that a request brings along: a bucket counts apart from buckets of other
/// numbers, those of rules included, so that its limit holds by itself. A window's counts know no
/// rate, and are exact for every number.
pub fn override_tail(limit: &Limit) -> Vec<u8> {
    let mut tail = tail(limit);
    if let Algorithm::TokenBucket { .. } = limit.algorithm() {
        tail.push(b':');
        write_number(&mut tail, limit.requests().into());
    }
    tail
}

/// Returns true if [`tail`] is the same of both.
pub fn is_alike(one: &Limit, other: &Limit) -> bool {
    let algorithms = match (one.algorithm(), other.algorithm()) {
        (Algorithm::SlidingWindow { slots: one }, Algorithm::SlidingWindow { slots: other }) => {
            one == other
        }
        (Algorithm::TokenBucket { .. }, Algorithm::TokenBucket { .. })
        | (Algorithm::FixedWindow, Algorithm::FixedWindow) => true,
        (Algorithm::Concurrency, Algorithm::Concurrency) => return true,
        _ => false,
    };
    let calendar = |limit: &Limit| limit.windows().map(|windows| windows.name());
    algorithms && one.period_micros() == other.period_micros() && calendar(one) == calendar(other)
}

fn write_number(text: &mut Vec<u8>, number: u64) {
    if number >= 10 {
        write_number(text, number / 10);
    }
    text.push(b'0' + (number % 10) as u8);
}

/// Hides values that must be readable nowhere, the same way on every replica.
#[derive(Clone)]
pub struct SensitiveHasher {
    keyed: Hmac<Sha256>,
    open: bool,
}

/// The warning about policies that mark values as sensitive where [`SensitiveHasher::is_open`].
pub const OPEN_SECRETS: &str = "policies mark values as sensitive, and sensitive_key is not set: whoever guesses a value can \
    confirm it by its hash; set the same random sensitive_key on every replica";

impl std::fmt::Debug for SensitiveHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SensitiveHasher")
    }
}

impl SensitiveHasher {
    /// Hashes keyed with `secret`, which replicas that share counters must share.
    #[expect(
        clippy::expect_used,
        clippy::missing_panics_doc,
        reason = "HMAC takes keys of any length"
    )]
    pub fn new(secret: &[u8]) -> Self {
        let keyed = Hmac::<Sha256>::new_from_slice(&Sha256::digest(secret));
        Self { keyed: keyed.expect("HMAC takes keys of any length"), open: secret.is_empty() }
    }

    /// Returns true if the key is public: a value can be confirmed by its hash then.
    pub const fn is_open(&self) -> bool {
        self.open
    }

    /// 32 hexadecimal digits, the first half of an HMAC-SHA-256.
    pub fn hash(&self, value: &[u8]) -> String {
        let mut mac = self.keyed.clone();
        mac.update(value);
        hex(&mac.finalize().into_bytes())
    }
}

/// The first 16 bytes in hexadecimal.
fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().take(16).fold(String::with_capacity(32), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn shorten(key: &mut Vec<u8>, from: usize) {
    if key.len() - from <= LONGEST_TAG {
        return;
    }
    let hash = hex(&Sha256::digest(key.get(from..).unwrap_or_default()));
    key.truncate(from + KEPT_OF_LONG_TAG);
    // `@` is always escaped elsewhere, so no short key ends like this.
    key.push(b'@');
    key.extend_from_slice(hash.as_bytes());
}

/// The bytes that stand in a key as they are.
#[expect(clippy::indexing_slicing, reason = "computed by the compiler, which would see a panic")]
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = b'!';
    while byte <= b'~' {
        plain[byte as usize] =
            !matches!(byte, b'%' | b'|' | b'=' | b'~' | b'#' | b'{' | b'}' | b'@');
        byte += 1;
    }
    plain
};

/// Appends `bytes` with what is not plain as `%` and two digits. Copies runs of plain bytes whole:
/// all entries of a request come through here.
fn escape_into(key: &mut Vec<u8>, bytes: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let is_plain = |byte: &u8| PLAIN.get(usize::from(*byte)).is_some_and(|plain| *plain);
    // Without an early end, which takes longer than a few bytes more.
    if bytes.iter().fold(true, |all, byte| all & is_plain(byte)) {
        return key.extend_from_slice(bytes);
    }
    let mut rest = bytes;
    while let Some(run) = rest.iter().position(|byte| !is_plain(byte))
        && let Some((plain, [byte, after @ ..])) = rest.split_at_checked(run)
    {
        key.extend_from_slice(plain);
        let digit = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or(b'0');
        key.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 15)]);
        rest = after;
    }
    key.extend_from_slice(rest);
}

fn escaped(bytes: &[u8]) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(bytes.len());
    escape_into(&mut escaped, bytes);
    escaped
}

#[cfg(test)]
mod tests;
