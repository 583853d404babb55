//! The arguments and the reply of the script as typed values. Nothing here talks to Redis.
//!
//! `decide.lua` has the tables of both; the two files change together. A group is encoded once by its caller
//! ([`Encoded::new`]), joined with others to a [`Frame`], and its share of the reply becomes readings again in
//! [`readings`]. Products that need 128 bits are worked out here: the script only adds, compares and carries.

use std::hash::BuildHasher as _;
use std::ops::{Deref, Range};
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};
use redis::Cmd;

use super::resp;
use crate::domain::limit::Span;
use crate::domain::{
    Algorithm, Claim, Commit, Counter, Group, Hits, Key, Lease, LeaseAsk, Limit, Part, Reading,
    SATURATION, Timestamp, fixed_window, sliding_window, token_bucket,
};
use crate::store::StoreError;

/// Takes the time from the server that runs the script.
const SERVER_TIME: &str = "local time = redis.call('TIME')\n\
     local now, keep_ms = time[1] * 1000000 + time[2], 0\n";
/// Takes the time and `keep_ms` from two further arguments.
const MANUAL_TIME: &str = "local now, keep_ms = tonumber(ARGV[2]), tonumber(ARGV[3])\n";

/// The script: a head that sets the time, and `decide.lua`.
#[derive(Debug)]
pub struct Script {
    text: String,
    /// SHA-1 in hexadecimal, under which Redis keeps the script.
    hash: String,
}

impl Script {
    /// What `decide.lua` says, without a head.
    pub const BODY: &str = include_str!("decide.lua");

    /// The script as the store runs it: the time is the server's.
    pub fn with_server_time() -> Self {
        Self::new(SERVER_TIME, Self::BODY)
    }

    /// The script with the time as an argument, to replay traces. A call needs two further arguments: the time
    /// in microseconds since 1970, and by how many milliseconds keys outlive their state, because they expire by the
    /// server's clock. `body` is [`Script::BODY`], or a changed one whose faults a test must find.
    pub fn with_manual_time(body: &str) -> Self {
        Self::new(MANUAL_TIME, body)
    }

    fn new(head: &str, body: &str) -> Self {
        let text = [head, body].concat();
        let hash = redis::Script::new(&text).get_hash().to_owned();
        Self { text, hash }
    }

    /// Loads the script into a server.
    pub fn load(&self) -> Cmd {
        let mut command = redis::cmd("SCRIPT");
        command.arg("LOAD").arg(&self.text);
        command
    }

    /// The name under which Redis keeps the script.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Writes the command that runs the script, already loaded, on `frame`.
    pub(super) fn call(&self, frame: &Frame, out: &mut Vec<u8>) {
        frame.write(b"EVALSHA", self.hash.as_bytes(), out);
    }

    /// Writes the command that loads the script and runs it on `frame`.
    pub(super) fn call_with_text(&self, frame: &Frame, out: &mut Vec<u8>) {
        frame.write(b"EVAL", self.text.as_bytes(), out);
    }
}

/// One group as bytes, its slots still open: they depend on the other groups of its frame.
#[derive(Debug)]
pub struct Encoded {
    bytes: Vec<u8>,
    /// Where in `bytes` a slot belongs, and the key it stands for.
    slots: Vec<(usize, Key)>,
    claims: usize,
    integers: usize,
}

impl Encoded {
    /// `group` as the script reads it.
    ///
    /// # Errors
    /// More than 65 535 parts, or claims in a part.
    pub fn new(group: &Group, commit: Commit) -> Result<Self, StoreError> {
        let mut encoded = Self {
            bytes: Vec::with_capacity(8 + 48 * group.claims.len()),
            slots: Vec::with_capacity(group.claims.len()),
            claims: group.claims.len(),
            integers: group.claims.iter().map(integers).sum(),
        };
        if let ([_], [claim], Commit::Together | Commit::Each) =
            (group.parts.as_slice(), group.claims.as_slice(), commit)
        {
            encoded.bytes.push(3);
            encoded.claim(claim);
            return Ok(encoded);
        }
        encoded.bytes.push(match commit {
            Commit::Together => 0,
            Commit::Each => 1,
            Commit::Never => 2,
        });
        encoded.count(group.parts.len())?;
        for part in &group.parts {
            encoded.part(part, group.claims_of(part))?;
        }
        Ok(encoded)
    }

    /// How many claims the group has.
    pub const fn claims(&self) -> usize {
        self.claims
    }

    /// How many integers of a reply belong to the group.
    pub const fn integers(&self) -> usize {
        self.integers
    }

    /// Whether no claim needs a counter: the outcome is known without Redis.
    pub fn is_certain(&self) -> bool {
        self.slots.is_empty()
    }

    fn part(&mut self, part: &Part, claims: &[Claim]) -> Result<(), StoreError> {
        self.bytes.push(u8::from(part.quota) + 2 * u8::from(part.shadow));
        self.count(claims.len())?;
        for claim in claims {
            self.claim(claim);
        }
        Ok(())
    }

    fn claim(&mut self, claim: &Claim) {
        let limit = &claim.limit;
        if !limit.is_blocked() {
            self.slots.push((self.bytes.len(), claim.key.clone()));
        }
        let algorithm = match limit.algorithm() {
            _ if limit.is_blocked() => 0,
            Algorithm::TokenBucket { .. } if claim.lease.is_some() => 4,
            Algorithm::TokenBucket { .. } => 1,
            Algorithm::SlidingWindow { .. } => 2,
            Algorithm::FixedWindow => 3,
        };
        let (kind, hits) = match claim.hits {
            Hits::Take(hits) => (0, hits),
            Hits::Peek => (1, 1),
            Hits::Refund(hits) => (2, hits),
        };
        self.bytes.extend([0, 0, algorithm, kind, u8::from(limit.always_charges())]);
        if limit.is_blocked() {
            return;
        }
        if let Algorithm::TokenBucket { .. } = limit.algorithm() {
            self.small(limit.requests());
            for span in [limit.cost(hits), limit.full(), limit.ceiling()] {
                self.span(span);
            }
            if let Some(ask) = &claim.lease {
                self.lease(limit, ask);
            }
            return;
        }
        self.large(hits.min(SATURATION));
        self.small(limit.requests());
        self.large(limit.period_micros());
        if let Algorithm::SlidingWindow { slots } = limit.algorithm() {
            self.large(limit.run_width());
            self.small(slots);
        }
    }

    fn lease(&mut self, limit: &Limit, ask: &LeaseAsk) {
        let finished = ask.finished.unwrap_or(Lease { tokens: 0, until: 0 });
        for tokens in [ask.tokens, ask.most, finished.tokens] {
            self.span(limit.cost(tokens));
        }
        self.large(finished.until);
        self.large(ask.ttl);
    }

    fn span(&mut self, span: Span) {
        self.large(span.micros);
        // Less than the rate, which has 32 bits.
        self.small(span.remainder as u32);
    }

    /// At most 2^53, which a double holds exactly.
    fn large(&mut self, number: u64) {
        self.bytes.extend((number as f64).to_le_bytes());
    }

    fn small(&mut self, number: u32) {
        self.bytes.extend(number.to_le_bytes());
    }

    fn count(&mut self, count: usize) -> Result<(), StoreError> {
        let count = u16::try_from(count)
            .map_err(|_| StoreError::Rejected(format!("{count} limits in one request")))?;
        self.bytes.extend(count.to_le_bytes());
        Ok(())
    }
}

/// Groups that are decided by one call of the script, one after the other.
#[derive(Debug, Default)]
pub struct Frame {
    args: Vec<u8>,
    /// The distinct keys of the groups, in the order of their slots, one after the other.
    names: Vec<u8>,
    /// Where in `names` each key is.
    keys: Vec<Range<usize>>,
    /// The slots, found by their keys.
    slots: HashTable<u16>,
    hasher: DefaultHashBuilder,
    /// How many integers of the reply each group has.
    integers: Vec<usize>,
}

impl Frame {
    /// Adds a group.
    ///
    /// # Errors
    /// More than 65 535 keys; the group is not added then.
    pub fn push(&mut self, group: &Encoded) -> Result<(), StoreError> {
        let offset = self.args.len();
        self.args.extend_from_slice(&group.bytes);
        for (at, key) in &group.slots {
            let Some(slot) = self.slot(key.as_bytes()) else {
                self.args.truncate(offset);
                let reason = "more than 65535 counters in one call".to_owned();
                return Err(StoreError::Rejected(reason));
            };
            if let Some(place) = self.args.get_mut(offset + at..offset + at + 2) {
                place.copy_from_slice(&slot.to_le_bytes());
            }
        }
        self.integers.push(group.integers);
        Ok(())
    }

    /// Removes all groups.
    pub fn clear(&mut self) {
        self.args.clear();
        self.names.clear();
        self.keys.clear();
        self.slots.clear();
        self.integers.clear();
    }

    /// The distinct keys of the groups, in the order of their slots.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.keys.iter().map(|place| name(&self.names, place))
    }

    /// The groups as the script reads them.
    pub fn args(&self) -> &[u8] {
        &self.args
    }

    /// How many integers of the reply each group has.
    pub fn integers(&self) -> &[usize] {
        &self.integers
    }

    /// The slot of `key`, a new one if it has none yet; none if there are too many.
    fn slot(&mut self, key: &[u8]) -> Option<u16> {
        let Self { names, keys, slots, hasher, .. } = self;
        let of = |slot: u16| keys.get(usize::from(slot) - 1).map_or(&[][..], |at| name(names, at));
        let hash = hasher.hash_one(key);
        if let Some(slot) = slots.find(hash, |slot| of(*slot) == key) {
            return Some(*slot);
        }
        let slot = u16::try_from(keys.len() + 1).ok()?;
        slots.insert_unique(hash, slot, |slot| hasher.hash_one(of(*slot)));
        keys.push(names.len()..names.len() + key.len());
        names.extend_from_slice(key);
        Some(slot)
    }

    fn write(&self, command: &[u8], script: &[u8], out: &mut Vec<u8>) {
        resp::put_count(out, 4 + self.keys.len());
        resp::put_string(out, command);
        resp::put_string(out, script);
        resp::put_number(out, self.keys.len());
        for key in self.keys() {
            resp::put_string(out, key);
        }
        resp::put_string(out, &self.args);
    }
}

fn name<'a>(names: &'a [u8], place: &Range<usize>) -> &'a [u8] {
    names.get(place.clone()).unwrap_or_default()
}

/// What the script answered to a frame.
#[derive(Debug)]
pub struct Reply {
    /// How many states could not be read and counted as empty.
    pub unreadable: u64,
    integers: Arc<[i64]>,
    /// Where the next group begins.
    at: usize,
}

impl Reply {
    /// The list of integers of which the script's answer consists.
    ///
    /// # Errors
    /// [`StoreError::Protocol`] for an empty list, or one that begins with a negative number.
    pub fn new(integers: Vec<i64>) -> Result<Self, StoreError> {
        let unreadable = integers.first().and_then(|count| u64::try_from(*count).ok());
        let unreadable = unreadable
            .ok_or_else(|| StoreError::Protocol("the reply has no count of states".into()))?;
        Ok(Self { unreadable, integers: integers.into(), at: 1 })
    }

    /// The integers of the next group, which has `count` of them; fewer if the reply is short.
    pub fn next_group(&mut self, count: usize) -> Integers {
        let start = self.at.min(self.integers.len());
        self.at = (start + count).min(self.integers.len());
        Integers { all: Arc::clone(&self.integers), own: start..self.at }
    }
}

/// One group's share of a reply.
#[derive(Debug)]
pub struct Integers {
    all: Arc<[i64]>,
    own: Range<usize>,
}

impl Deref for Integers {
    type Target = [i64];

    fn deref(&self) -> &[i64] {
        self.all.get(self.own.clone()).unwrap_or_default()
    }
}

/// The readings of `group`, one per claim, from its integers.
///
/// # Errors
/// [`StoreError::Protocol`] when integers are missing or negative.
pub fn readings(group: &Group, integers: &[i64]) -> Result<Vec<Reading>, StoreError> {
    let mut integers = integers.iter().copied();
    group
        .claims
        .iter()
        .map(|claim| known(claim).or_else(|| reading(claim, &mut integers)))
        .collect::<Option<_>>()
        .ok_or_else(|| StoreError::Protocol("the reply is too short or negative".into()))
}

/// What is certain of a claim without its counter: the outcome of a blocked limit.
pub fn known(claim: &Claim) -> Option<Reading> {
    claim
        .limit
        .is_blocked()
        .then(|| Counter::Empty.step(&claim.limit, claim.hits, Timestamp::default()))
}

fn reading(claim: &Claim, integers: &mut impl Iterator<Item = i64>) -> Option<Reading> {
    let Claim { limit, hits, lease, .. } = claim;
    let first = integers.next()?;
    let passed = first >= 0;
    let first = if passed { first } else { !first } as u64;
    let mut next = || u64::try_from(integers.next()?).ok();
    Some(match limit.algorithm() {
        Algorithm::TokenBucket { .. } => {
            let lag = Span { micros: first, remainder: next()? };
            let leased_until =
                if lease.is_some() { Some(next()?).filter(|at| *at > 0) } else { None };
            Reading { leased_until, ..token_bucket::reading(limit, *hits, passed, lag) }
        }
        Algorithm::SlidingWindow { .. } => {
            let (fits_in, empty_in) = (next()?, next()?);
            sliding_window::reading(limit, *hits, passed, first, fits_in, empty_in)
        }
        Algorithm::FixedWindow => fixed_window::reading(limit, *hits, passed, first, next()?),
    })
}

/// How many integers of the reply `claim` has.
const fn integers(claim: &Claim) -> usize {
    match claim.limit.algorithm() {
        _ if claim.limit.is_blocked() => 0,
        Algorithm::TokenBucket { .. } if claim.lease.is_some() => 3,
        Algorithm::TokenBucket { .. } | Algorithm::FixedWindow => 2,
        Algorithm::SlidingWindow { .. } => 3,
    }
}
