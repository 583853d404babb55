//! A request as the layers and the store see it: one group of claims, and what the layers must know of each.

use crate::domain::Group;
use crate::policy::{LeaseTerms, OnStoreFailure};

/// One request on its way through the layers.
#[derive(Clone, Debug, Default)]
pub struct Ask {
    /// What the store decides.
    pub group: Group,
    /// One per claim of the group, same order.
    pub traits: Vec<Traits>,
}

/// What a layer must know of a claim's rule.
#[derive(Clone, Copy, Debug)]
pub struct Traits {
    /// What to answer when the store does not; none: as the settings say.
    pub on_store_failure: Option<OnStoreFailure>,
    /// How tokens of it may be leased.
    pub lease: Option<LeaseTerms>,
}
