//! The holds of a request, those that it ends, and its reports, beside its claims.

use crate::domain::HoldId;
use crate::policy::HoldTerms;

/// The holds of a request. Most have none, so they are boxed.
#[derive(Clone, Debug)]
pub(super) struct Holding {
    pub(super) id: HoldId,
    /// The claims that are settled by a handle.
    pub(super) held: Vec<Held>,
    /// Holds without a handle.
    pub(super) unnamed: Vec<Unnamed>,
    /// Costs that end holds without a handle.
    pub(super) reported: Vec<Reported>,
    /// The numbers of the rules that adapt to how the request fares.
    pub(super) rules: Vec<u32>,
}

impl Default for Holding {
    fn default() -> Self {
        let id = HoldId::from_random(fastrand::u64(..));
        let (held, unnamed, reported, rules) = Default::default();
        Self { id, held, unnamed, reported, rules }
    }
}

impl Holding {
    /// Forgets the claims from the `claims`-th on.
    pub(super) fn truncate(&mut self, claims: usize) {
        self.held.retain(|held| held.claim < claims);
        self.unnamed.retain(|unnamed| unnamed.claim < claims);
        self.reported.retain(|reported| reported.claim < claims);
    }
}

/// A claim on a limit that holds.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    /// Its position.
    pub claim: usize,
    /// The terms of its limit; none: a concurrency limit.
    pub terms: Option<HoldTerms>,
    /// The position of the limit of the rule that has the terms.
    pub limit: usize,
    /// The source of its hits.
    pub basis: Basis,
}

/// A hold without a handle: a claim of the estimate, and one that counts it.
#[derive(Clone, Copy, Debug)]
pub struct Unnamed {
    /// The position of the estimate.
    pub claim: usize,
    /// The position of the slot by which it is counted.
    pub slot: usize,
}

/// The report of a cost, which ends the oldest hold without a handle.
#[derive(Clone, Copy, Debug)]
pub struct Reported {
    /// The position of the claim on the limit.
    pub claim: usize,
    /// The terms of the limit.
    pub terms: HoldTerms,
    /// The hits.
    pub cost: u64,
}

/// The source of the hits that are held.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Basis {
    /// The request.
    Request,
    /// The rule: its estimate, or a cost that is the same for every request.
    Rule,
    /// The costs of requests before.
    Learned,
    /// The most that may be held, since too few requests have ended to learn from.
    Most,
}

impl Basis {
    /// A short name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Rule => "rule",
            Self::Learned => "learned",
            Self::Most => "max",
        }
    }
}
