//! A group as the script reads it: the claims' numbers, worked out by their limits.

use crate::domain::limit::Span;
use crate::domain::{
    Algorithm, Claim, Commit, Group, Hits, Key, Lease, LeaseAsk, Limit, Part, SATURATION,
};
use crate::store::StoreError;

/// Added to the algorithm of a claim that is a group of its own.
const SINGLE: u8 = 16;

/// One group as bytes, its slots still open: they depend on the other groups of its frame.
#[derive(Debug)]
pub struct Encoded {
    pub(super) bytes: Vec<u8>,
    /// Where in `bytes` a slot belongs, and the key it stands for.
    pub(super) slots: Vec<(usize, Key)>,
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
        let slot = self.bytes.len() + 1;
        self.bytes.extend([algorithm, 0, 0, kind, u8::from(limit.always_charges())]);
        if limit.is_blocked() {
            return;
        }
        self.slots.push((slot, claim.key.clone()));
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

/// How many integers of the reply `claim` has.
const fn integers(claim: &Claim) -> usize {
    match claim.limit.algorithm() {
        _ if claim.limit.is_blocked() => 0,
        Algorithm::TokenBucket { .. } if claim.lease.is_some() => 3,
        Algorithm::TokenBucket { .. } | Algorithm::FixedWindow => 2,
        Algorithm::SlidingWindow { .. } => 3,
    }
}
