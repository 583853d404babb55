//! A descriptor whose limits are found.

use std::sync::Arc;

use super::plan::ClientPlan;
use crate::domain::Part;
use crate::limiter::snapshot::RuleRef;
use crate::limits::Client;

/// One descriptor, resolved.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The rule that matched.
    pub rule: Option<RuleRef>,
    /// The client that it is.
    pub client: Option<Arc<Client>>,
    /// The plan of the client.
    pub plan: ClientPlan,
    /// The limit that the request brings along stands in for the rule's.
    pub overridden: bool,
    /// Its limits.
    pub target: Target,
}

/// The limits of a descriptor.
#[derive(Clone, Debug)]
pub enum Target {
    /// Nothing.
    Nothing,
    /// A client or a rule that says so.
    Unlimited,
    /// A part of the group.
    Part(Part),
    /// A part of the group that always fails, for the override cannot be understood and nothing
    /// else matched.
    InvalidOverride(Part),
}
