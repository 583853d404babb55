//! The arguments and the reply of the script as typed values. Nothing here talks to Redis.
//!
//! `decide.lua` has the tables of both; the two files change together. A group is encoded once by its caller
//! ([`Encoded::new`]), joined with others to a [`Frame`], and its share of the reply becomes readings again in
//! [`readings`]. Products that need 128 bits are worked out here: the script only adds, compares and carries.

use hashbrown::HashMap;
use redis::Cmd;

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

    /// Runs the script, already loaded, on `frame`.
    pub fn call(&self, frame: &Frame) -> Cmd {
        frame.command("EVALSHA", &self.hash)
    }

    /// Loads and runs the script on `frame`.
    pub fn call_with_text(&self, frame: &Frame) -> Cmd {
        frame.command("EVAL", &self.text)
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
    keys: Vec<Key>,
    slots: HashMap<Key, u16>,
}

impl Frame {
    /// Adds a group.
    ///
    /// # Errors
    /// More than 65 535 keys.
    pub fn push(&mut self, group: Encoded) -> Result<(), StoreError> {
        let offset = self.args.len();
        self.args.extend(group.bytes);
        for (at, key) in group.slots {
            let slot = match self.slots.get(&key) {
                Some(slot) => *slot,
                None => self.add_key(key)?,
            };
            if let Some(place) = self.args.get_mut(offset + at..offset + at + 2) {
                place.copy_from_slice(&slot.to_le_bytes());
            }
        }
        Ok(())
    }

    /// The distinct keys of the groups, in the order of their slots.
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    fn add_key(&mut self, key: Key) -> Result<u16, StoreError> {
        self.keys.push(key.clone());
        let slot = u16::try_from(self.keys.len())
            .map_err(|_| StoreError::Rejected("more than 65535 counters in one call".into()))?;
        self.slots.insert(key, slot);
        Ok(slot)
    }

    fn command(&self, name: &str, script: &str) -> Cmd {
        let mut command = redis::cmd(name);
        command.arg(script).arg(self.keys.len());
        for key in &self.keys {
            command.arg(key.as_bytes());
        }
        command.arg(self.args.as_slice());
        command
    }
}

/// What the script answered to a frame.
#[derive(Debug)]
pub struct Reply {
    /// How many states could not be read and counted as empty.
    pub unreadable: u64,
    integers: std::vec::IntoIter<i64>,
}

impl Reply {
    /// Reads the list of integers.
    ///
    /// # Errors
    /// [`StoreError::Protocol`] for anything else.
    pub fn new(value: redis::Value) -> Result<Self, StoreError> {
        let integers: Vec<i64> = redis::from_redis_value(value)
            .map_err(|error| StoreError::Protocol(error.to_string()))?;
        let mut integers = integers.into_iter();
        let unreadable = integers.next().and_then(|count| u64::try_from(count).ok());
        let unreadable = unreadable
            .ok_or_else(|| StoreError::Protocol("the reply has no count of states".into()))?;
        Ok(Self { unreadable, integers })
    }

    /// The integers of the next group, which has `count` of them; fewer if the reply is short.
    pub fn next_group(&mut self, count: usize) -> Vec<i64> {
        self.integers.by_ref().take(count).collect()
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
