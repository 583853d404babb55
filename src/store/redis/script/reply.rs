//! The script's list of integers, shared out among the groups, and what it says of their claims.

use std::iter;
use std::ops::{Deref, Range};
use std::sync::Arc;

use smallvec::SmallVec;

use super::layout::{self, Answer};
use crate::domain::limit::Span;
use crate::domain::{
    Algorithm, Claim, Group, Reading, Timestamp, concurrency, fixed_window, sliding_window,
    token_bucket,
};
use crate::store::StoreError;

/// The number of integers before those of the groups.
const HEAD: usize = layout::ReplyHead::INTEGERS.len();

/// The reply of the script to a frame.
#[derive(Debug)]
pub struct Reply {
    /// The number of states that could not be read and counted as empty.
    pub unreadable: u64,
    /// The time of the decision on the clock of the store.
    pub decided_at: Timestamp,
    integers: Arc<[i64]>,
    /// The place at which the next group begins.
    at: usize,
}

impl Reply {
    /// The list of integers of which the script's answer consists.
    ///
    /// # Errors
    /// [`StoreError::Protocol`] for a list that does not begin with two numbers, or with negative
    /// ones.
    pub fn new(integers: Vec<i64>) -> Result<Self, StoreError> {
        let mut first = integers.iter().map_while(|integer| u64::try_from(*integer).ok());
        let layout::ReplyHead { unreadable, now } = Answer::read(&mut first)
            .ok_or_else(|| StoreError::Protocol("the reply has no head".into()))?;
        let decided_at = Timestamp::from_micros(now);
        Ok(Self { unreadable, decided_at, integers: integers.into(), at: HEAD })
    }

    /// True if the reply has as many integers as groups of these counts have together.
    pub fn is_of(&self, counts: &[usize]) -> bool {
        self.integers.len() == HEAD + counts.iter().sum::<usize>()
    }

    /// The integers of the next group, which has `count` of them; fewer if the reply is short.
    pub fn next_group(&mut self, count: usize) -> Integers {
        let start = self.at.min(self.integers.len());
        self.at = (start + count).min(self.integers.len());
        let (all, decided_at) = (Arc::clone(&self.integers), self.decided_at);
        Integers { all, own: start..self.at, decided_at }
    }
}

/// One group's share of a reply.
#[derive(Debug)]
pub struct Integers {
    /// The time of the decision on the clock of the store.
    pub decided_at: Timestamp,
    all: Arc<[i64]>,
    own: Range<usize>,
}

impl Deref for Integers {
    type Target = [i64];

    fn deref(&self) -> &[i64] {
        self.all.get(self.own.clone()).unwrap_or_default()
    }
}

/// The readings of `group`, one per claim, from its integers. It was decided at `at`.
///
/// # Errors
/// [`StoreError::Protocol`] when integers are missing or negative.
pub fn readings(
    group: &Group,
    integers: &[i64],
    at: Timestamp,
) -> Result<SmallVec<[Reading; 1]>, StoreError> {
    let mut integers = integers.iter().copied();
    group
        .claims
        .iter()
        .map(|claim| {
            let reading = reading(claim, &mut integers)?;
            // A blocked limit has no counter, and no time.
            Some(if claim.limit.is_blocked() { reading } else { Reading { at, ..reading } })
        })
        .collect::<Option<_>>()
        .ok_or_else(|| StoreError::Protocol("the reply is too short or negative".into()))
}

/// The first integer x of a claim says "passed" as x and "failed" as -x - 1. A blocked limit has
/// none.
fn reading(claim: &Claim, integers: &mut impl Iterator<Item = i64>) -> Option<Reading> {
    let Claim { limit, hits, lease, .. } = claim;
    if limit.is_blocked() {
        return claim.certain();
    }
    let first = integers.next()?;
    let passed = first >= 0;
    let first = if passed { first } else { !first } as u64;
    let others = integers.map_while(|integer| u64::try_from(integer).ok());
    let mut integers = iter::once(first).chain(others);
    Some(match limit.algorithm() {
        Algorithm::TokenBucket { .. } => {
            let layout::BucketAnswer { lag, rest } = Answer::read(&mut integers)?;
            let leased_until = if lease.is_some() {
                let layout::LeaseAnswer { leased_until } = Answer::read(&mut integers)?;
                Some(leased_until).filter(|at| *at > 0).map(Timestamp::from_micros)
            } else {
                None
            };
            let lag = Span { micros: lag, remainder: rest };
            Reading { leased_until, ..token_bucket::reading(limit, *hits, passed, lag) }
        }
        Algorithm::SlidingWindow { .. } => {
            let layout::SlidingAnswer { total, fits_in, empty_in } = Answer::read(&mut integers)?;
            sliding_window::reading(limit, *hits, passed, total, fits_in, empty_in)
        }
        Algorithm::FixedWindow => {
            let layout::FixedAnswer { count, ends_in } = Answer::read(&mut integers)?;
            fixed_window::reading(limit, *hits, passed, count, ends_in)
        }
        Algorithm::Concurrency => {
            let layout::ConcurrencyAnswer { live, ends_in } = Answer::read(&mut integers)?;
            concurrency::reading(limit, passed, live, ends_in)
        }
    })
}
