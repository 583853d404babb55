//! A group as the script reads it: the claims' numbers, worked out by their limits.

use smallvec::SmallVec;

use super::layout::{self, Answer as _, Record as _, Sink};
use crate::domain::{
    Algorithm, Claim, Commit, Group, Hits, Key, Lease, LeaseAsk, Limit, Part, SATURATION, Timestamp,
};
use crate::store::StoreError;

/// One group as bytes, with the numbers of its counters and limits still open: they depend on the
/// other groups of its frame. Most have one claim, which takes no allocation.
#[derive(Debug)]
pub struct Encoded {
    pub(super) bytes: SmallVec<[u8; 32]>,
    pub(super) open: SmallVec<[Open; 1]>,
    claims: usize,
    integers: usize,
}

/// A claim without its slot and the number of its limit.
#[derive(Debug)]
pub(super) struct Open {
    /// The position of its head in the bytes of the group.
    pub(super) at: usize,
    pub(super) head: layout::ClaimHead,
    pub(super) key: Key,
    pub(super) limit: EncodedLimit,
}

/// A limit as bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct EncodedLimit {
    bytes: [u8; Self::MAX_BYTES],
    len: usize,
}

impl Encoded {
    /// `group` as the script reads it.
    ///
    /// # Errors
    /// More than 65 535 parts, or claims in a part.
    pub fn new(group: &Group, commit: Commit) -> Result<Self, StoreError> {
        let mut encoded = Self {
            bytes: SmallVec::new(),
            open: SmallVec::new(),
            claims: group.claims.len(),
            integers: group.claims.iter().map(integers).sum(),
        };
        if let ([_], [claim], Commit::Together | Commit::Each) =
            (group.parts.as_slice(), group.claims.as_slice(), commit)
            && !claim.limit.is_concurrency()
        {
            // No commit, no parts: a single claim that fails undoes itself. The short way of the
            // script reads a string, so a set of holds goes the long one.
            encoded.claim(claim, layout::SINGLE);
            return Ok(encoded);
        }
        let commit = match commit {
            Commit::Together => layout::TOGETHER,
            Commit::Each => layout::EACH,
            Commit::Never => layout::NEVER,
        };
        let parts = count(group.parts.len())?;
        layout::GroupHead { commit, parts }.write(&mut encoded.bytes);
        for part in &group.parts {
            encoded.part(part, group.claims_of(part))?;
        }
        Ok(encoded)
    }

    /// The number of claims of the group.
    pub const fn claims(&self) -> usize {
        self.claims
    }

    /// The number of integers of a reply that belong to the group.
    pub const fn integers(&self) -> usize {
        self.integers
    }

    fn part(&mut self, part: &Part, claims: &[Claim]) -> Result<(), StoreError> {
        let roles = u8::from(part.quota) * layout::QUOTA + u8::from(part.shadow) * layout::SHADOW;
        layout::PartHead { roles, claims: count(claims.len())? }.write(&mut self.bytes);
        for claim in claims {
            self.claim(claim, 0);
        }
        Ok(())
    }

    /// `mark` is added to the algorithm.
    fn claim(&mut self, claim: &Claim, mark: u8) {
        let limit = &claim.limit;
        let (kind, hits) = match claim.hits {
            Hits::Take(hits) => (layout::TAKE, hits),
            Hits::Peek(hits) => (layout::PEEK, hits),
            Hits::Refund(hits) => (layout::REFUND, hits),
            Hits::Book(hits) => (layout::BOOK, hits),
            // Of another limit than one on concurrency it is one hit.
            Hits::Hold(_) => (layout::TAKE, 1),
        };
        let algorithm = algorithm(claim);
        let at = self.bytes.len();
        let head = layout::ClaimHead { algorithm: algorithm + mark, slot: 0, limit: 0, kind };
        head.write(&mut self.bytes);
        if algorithm == layout::BLOCKED {
            return;
        }
        self.open.push(Open { at, head, key: claim.key.clone(), limit: EncodedLimit::new(limit) });
        if let Algorithm::TokenBucket { .. } = limit.algorithm() {
            layout::Cost { cost: limit.price(claim.hits) }.write(&mut self.bytes);
            if let Some(ask) = &claim.lease {
                self.lease(limit, ask);
            }
        } else if limit.is_concurrency() {
            let id = if let Hits::Hold(id) = claim.hits { id } else { 0 };
            layout::SlotId { id }.write(&mut self.bytes);
        } else {
            layout::WindowHits { hits: hits.min(SATURATION) }.write(&mut self.bytes);
        }
    }

    fn lease(&mut self, limit: &Limit, ask: &LeaseAsk) {
        let finished = ask.finished.unwrap_or(Lease { tokens: 0, until: Timestamp::EPOCH });
        let ask = layout::Ask {
            tokens: limit.cost(ask.tokens),
            most: limit.cost(ask.most),
            finished: limit.cost(finished.tokens),
            finished_until: finished.until.as_micros(),
            ttl: ask.ttl.as_micros() as u64,
        };
        ask.write(&mut self.bytes);
    }
}

fn count(count: usize) -> Result<u16, StoreError> {
    u16::try_from(count).map_err(|_| StoreError::Rejected(format!("{count} limits in one request")))
}

impl EncodedLimit {
    /// The length of the limit of a token bucket, the longest.
    const MAX_BYTES: usize = layout::LimitHead::SIZE + layout::BucketLimit::SIZE;

    pub(super) fn new(limit: &Limit) -> Self {
        let mut encoded = Self { bytes: [0; Self::MAX_BYTES], len: 0 };
        let algorithm = number(limit);
        layout::LimitHead { algorithm, always: limit.always_charges().into() }.write(&mut encoded);
        let (requests, period) = (limit.requests(), limit.period_micros());
        match limit.algorithm() {
            Algorithm::TokenBucket { .. } => layout::BucketLimit {
                rate: limit.rate(),
                full: limit.full(),
                ceiling: limit.ceiling(),
                reach: limit.reach().to_bits(),
                period,
            }
            .write(&mut encoded),
            Algorithm::SlidingWindow { slots } => {
                let run_width = limit.run_width();
                layout::SlidingLimit { capacity: requests, period, run_width, slots }
                    .write(&mut encoded);
            }
            Algorithm::Concurrency => {
                layout::ConcurrencyLimit { capacity: requests, ttl: period }.write(&mut encoded);
            }
            Algorithm::FixedWindow => match limit.windows() {
                None => layout::FixedLimit { capacity: requests, period }.write(&mut encoded),
                Some(windows) => {
                    let [first, second, third, last] = windows.edges().map(Timestamp::as_micros);
                    layout::CalendarLimit { capacity: requests, first, second, third, last }
                        .write(&mut encoded);
                }
            },
        }
        encoded
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl Sink for EncodedLimit {
    fn put<const N: usize>(&mut self, bytes: [u8; N]) {
        if let Some(place) = self.bytes.get_mut(self.len..).and_then(<[u8]>::first_chunk_mut) {
            *place = bytes;
            self.len += N;
        }
    }
}

/// The operation of the script on `claim`.
const fn algorithm(claim: &Claim) -> u8 {
    match claim.limit.algorithm() {
        _ if claim.limit.is_blocked() => layout::BLOCKED,
        Algorithm::TokenBucket { .. } if claim.lease.is_some() => layout::LEASED_TOKEN_BUCKET,
        _ => number(&claim.limit),
    }
}

/// The number of the algorithm of a limit.
pub(super) const fn number(limit: &Limit) -> u8 {
    match limit.algorithm() {
        _ if limit.windows().is_some() => layout::CALENDAR_WINDOW,
        Algorithm::TokenBucket { .. } => layout::TOKEN_BUCKET,
        Algorithm::SlidingWindow { .. } => layout::SLIDING_WINDOW,
        Algorithm::FixedWindow => layout::FIXED_WINDOW,
        Algorithm::Concurrency => layout::CONCURRENCY,
    }
}

/// The number of integers of the reply that belong to `claim`.
const fn integers(claim: &Claim) -> usize {
    let bucket = layout::BucketAnswer::INTEGERS.len();
    match claim.limit.algorithm() {
        _ if claim.limit.is_blocked() => 0,
        Algorithm::TokenBucket { .. } if claim.lease.is_some() => {
            bucket + layout::LeaseAnswer::INTEGERS.len()
        }
        Algorithm::TokenBucket { .. } => bucket,
        Algorithm::SlidingWindow { .. } => layout::SlidingAnswer::INTEGERS.len(),
        Algorithm::FixedWindow => layout::FixedAnswer::INTEGERS.len(),
        Algorithm::Concurrency => layout::ConcurrencyAnswer::INTEGERS.len(),
    }
}
