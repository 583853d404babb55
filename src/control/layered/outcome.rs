//! The outcomes of changes: where a policy stands, what differs, and why a feed is refused.

use std::sync::Arc;

use super::origin::Origin;
use crate::policy::{Faults, PolicySet, Warning};

/// The place of an offer among those of other feeds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Standing {
    /// It is in force.
    InForce,
    /// A feed of higher precedence has a policy of the domain.
    ShadowedBy(Origin),
    /// It has faults.
    LeftOut(Faults),
}

/// The reason why a feed's policies were not put in force; those before stay.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refusal {
    /// They have faults.
    #[error("{0}")]
    Faults(#[from] Faults),
    /// There are none, and so many domains would lose their limits.
    #[error(
        "no policy is left, and {0} domains would lose their limits; \
         set policies.allow_empty to true if that is meant"
    )]
    Empty(usize),
    /// The compiler failed.
    #[error("compiling them failed: {0}")]
    Failed(String),
}

/// The domains in which one state of a feed differs from the one before, each list in order.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Difference {
    /// Domains that are new.
    pub added: Vec<Arc<str>>,
    /// Domains that are gone.
    pub removed: Vec<Arc<str>>,
    /// Domains with other texts.
    pub changed: Vec<Arc<str>>,
}

/// The outcome of new policies of a whole feed.
#[derive(Debug)]
pub struct Replaced {
    /// Everything in force, of all feeds.
    pub set: PolicySet,
    /// The warnings of the new policies.
    pub warnings: Vec<Warning>,
    /// The domains that differ.
    pub difference: Difference,
}
