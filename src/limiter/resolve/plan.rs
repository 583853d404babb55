//! The plan of a client, as a decision finds it.

use std::sync::Arc;

use crate::limits::Client;
use crate::limits::plans::PlanRef;

/// The plan of a client.
#[derive(Clone, Debug, Default)]
pub enum ClientPlan {
    /// It has none.
    #[default]
    None,
    /// This one.
    InForce(PlanRef),
    /// One that is not there.
    Missing(MissingPlan),
}

impl ClientPlan {
    /// The plan in force.
    pub const fn in_force(&self) -> Option<&PlanRef> {
        match self {
            Self::InForce(plan) => Some(plan),
            Self::None | Self::Missing(_) => None,
        }
    }

    /// The name of a plan that is not there.
    pub fn missing(&self) -> Option<&str> {
        match self {
            Self::Missing(missing) => Some(missing.name()),
            Self::None | Self::InForce(_) => None,
        }
    }
}

/// The plan that a client names and that is not there.
#[derive(Clone, Debug)]
pub struct MissingPlan {
    client: Arc<Client>,
    /// It is the one that follows the client's first.
    then: bool,
}

impl MissingPlan {
    /// The plan of `client`; `then`: the one that follows its first.
    pub(super) fn new(client: &Arc<Client>, then: bool) -> Self {
        Self { client: Arc::clone(client), then }
    }

    /// The name of the plan.
    pub fn name(&self) -> &str {
        let plan = self.client.plan.as_deref();
        let name =
            plan.and_then(|plan| if self.then { plan.then.as_ref() } else { Some(&plan.name) });
        name.map_or("", |name| name.as_str())
    }
}
