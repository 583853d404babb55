//! A group as the script reads it: the claims' numbers, worked out by their limits.

use crate::domain::limit::Span;
use crate::domain::{
    Algorithm, Claim, Commit, Group, Hits, Key, Lease, LeaseAsk, Limit, Part, SATURATION,
};
use crate::store::StoreError;

/// Added to the algorithm of a claim that is a group of its own.
const SINGLE: u8 = 16;

/// One group as bytes, with the numbers of its counters and limits still open: they depend on the other groups of its frame.
#[derive(Debug)]
pub struct Encoded {
    pub(super) bytes: Vec<u8>,
    pub(super) open: Vec<Open>,
    claims: usize,
    integers: usize,
}

/// What a claim is still without.
#[derive(Debug)]
pub(super) struct Open {
    /// Where in the bytes of its group the numbers belong: that of the counter, then that of the limit.
    pub(super) at: usize,
    pub(super) key: Key,
    pub(super) limit: EncodedLimit,
}

/// A limit as bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct EncodedLimit {
    bytes: [u8; Self::LONGEST],
    len: usize,
}

impl Encoded {
    /// `group` as the script reads it.
    ///
    /// # Errors
    /// More than 65 535 parts, or claims in a part.
    pub fn new(group: &Group, commit: Commit) -> Result<Self, StoreError> {
        let mut encoded = Self {
            bytes: Vec::with_capacity(8 + 24 * group.claims.len()),
            open: Vec::with_capacity(group.claims.len()),
            claims: group.claims.len(),
            integers: group.claims.iter().map(integers).sum(),
        };
        if let ([_], [claim], Commit::Together | Commit::Each) =
            (group.parts.as_slice(), group.claims.as_slice(), commit)
        {
            // No commit, no parts: a single claim that fails undoes itself.
            encoded.claim(claim);
            if let Some(algorithm) = encoded.bytes.first_mut() {
                *algorithm += SINGLE;
            }
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
        self.open.is_empty()
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
        let (kind, hits) = match claim.hits {
            Hits::Take(hits) => (0, hits),
            Hits::Peek => (1, 1),
            Hits::Refund(hits) => (2, hits),
        };
        let algorithm = algorithm(claim);
        let at = self.bytes.len() + 1;
        self.bytes.extend([algorithm, 0, 0, 0, 0, kind]);
        if algorithm == BLOCKED {
            return;
        }
        self.open.push(Open { at, key: claim.key.clone(), limit: EncodedLimit::new(limit) });
        if let Algorithm::TokenBucket { .. } = limit.algorithm() {
            self.bytes.extend(span(limit.cost(hits)));
            if let Some(ask) = &claim.lease {
                self.lease(limit, ask);
            }
        } else {
            self.bytes.extend(large(hits.min(SATURATION)));
        }
    }

    fn lease(&mut self, limit: &Limit, ask: &LeaseAsk) {
        let finished = ask.finished.unwrap_or(Lease { tokens: 0, until: 0 });
        for tokens in [ask.tokens, ask.most, finished.tokens] {
            self.bytes.extend(span(limit.cost(tokens)));
        }
        self.bytes.extend(large(finished.until));
        self.bytes.extend(large(ask.ttl));
    }

    fn count(&mut self, count: usize) -> Result<(), StoreError> {
        let count = u16::try_from(count)
            .map_err(|_| StoreError::Rejected(format!("{count} limits in one request")))?;
        self.bytes.extend(count.to_le_bytes());
        Ok(())
    }
}

impl EncodedLimit {
    /// The length of a token bucket's.
    const LONGEST: usize = 42;

    fn new(limit: &Limit) -> Self {
        let mut encoded = Self { bytes: [0; Self::LONGEST], len: 0 };
        encoded.push([number(limit.algorithm()), u8::from(limit.always_charges())]);
        encoded.push(limit.requests().to_le_bytes());
        if let Algorithm::TokenBucket { .. } = limit.algorithm() {
            encoded.push(span(limit.full()));
            encoded.push(span(limit.ceiling()));
            encoded.push(limit.reach().to_bits().to_le_bytes());
            encoded.push(large(limit.period_micros()));
            return encoded;
        }
        encoded.push(large(limit.period_micros()));
        if let Algorithm::SlidingWindow { slots } = limit.algorithm() {
            encoded.push(large(limit.run_width()));
            encoded.push(slots.to_le_bytes());
        }
        encoded
    }

    fn push<const N: usize>(&mut self, bytes: [u8; N]) {
        if let Some(place) = self.bytes.get_mut(self.len..).and_then(<[u8]>::first_chunk_mut) {
            *place = bytes;
            self.len += N;
        }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// The algorithm of a limit of no requests.
const BLOCKED: u8 = 0;

/// What the script does with `claim`.
const fn algorithm(claim: &Claim) -> u8 {
    match claim.limit.algorithm() {
        _ if claim.limit.is_blocked() => BLOCKED,
        Algorithm::TokenBucket { .. } if claim.lease.is_some() => 4,
        algorithm => number(algorithm),
    }
}

const fn number(algorithm: Algorithm) -> u8 {
    match algorithm {
        Algorithm::TokenBucket { .. } => 1,
        Algorithm::SlidingWindow { .. } => 2,
        Algorithm::FixedWindow => 3,
    }
}

/// Whole microseconds, at most 2^53 of them, and what is less than the rate, which has 32 bits.
fn span(span: Span) -> [u8; 12] {
    let mut bytes = [0; 12];
    let (micros, remainder) = bytes.split_at_mut(8);
    micros.copy_from_slice(&large(span.micros));
    remainder.copy_from_slice(&(span.remainder as u32).to_le_bytes());
    bytes
}

/// At most 2^53, which a double holds exactly.
const fn large(number: u64) -> [u8; 8] {
    (number as f64).to_le_bytes()
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
