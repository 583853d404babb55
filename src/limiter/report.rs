//! A limit as answers, logs and explanations report it: its numbers and its name.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use super::snapshot::RuleRef;
use crate::domain::Unit;
use crate::limits::plans::PlanRef;
use crate::policy::limit_numbers;
use crate::telemetry::metrics::LimitOf;

/// The limit of a claim as answers report it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Report {
    /// Requests per period.
    pub requests_per_unit: u32,
    /// The unit of the period.
    pub unit: Unit,
    /// The number of units of the period.
    pub unit_multiplier: u32,
    /// The limit's name.
    pub name: Option<LimitName>,
    /// The limit among those of its rule.
    pub of: LimitOf,
    /// It is on requests at a time; the period is the time to live of a hold.
    pub concurrent: bool,
}

impl Report {
    /// A copy that holds no policies, for those who keep it.
    #[must_use]
    pub fn detached(&self) -> Self {
        let name = self.name.as_deref().map(|name| LimitName::Own(name.into()));
        Self { name, ..*self }
    }
}

impl Report {
    /// Its name, otherwise its numbers as metrics have them, such as `100/MINUTE`. Those of a
    /// client or an override, too.
    pub fn label(&self) -> String {
        match &self.name {
            Some(name) => name.to_string(),
            None if self.concurrent => format!("{}/CONCURRENT", self.requests_per_unit),
            None => limit_numbers(self.requests_per_unit, self.unit, self.unit_multiplier),
        }
    }
}

/// The name of the limit, otherwise its numbers, such as `10 per minute`.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.name, self.unit_multiplier) {
            (Some(name), _) => f.write_str(name),
            (None, _) if self.concurrent => write!(f, "{} at a time", self.requests_per_unit),
            (None, 1) => write!(f, "{} per {}", self.requests_per_unit, self.unit.name()),
            (None, many) => {
                write!(f, "{} per {many} {}s", self.requests_per_unit, self.unit.name())
            }
        }
    }
}

/// The name of a limit, held by what names it.
#[derive(Clone)]
pub enum LimitName {
    /// The limit of a rule at this position, which has a name.
    Rule(RuleRef, usize),
    /// The limit of a plan at this position, which has a name.
    Plan(PlanRef, usize),
    /// By itself: of a client, whose count of references is written by decisions about that client
    /// alone, or a copy.
    Own(Arc<str>),
}

impl Deref for LimitName {
    type Target = str;

    #[expect(clippy::expect_used, clippy::indexing_slicing, reason = "made of a limit with a name")]
    fn deref(&self) -> &str {
        match self {
            Self::Rule(rule, limit) => {
                rule.limits[*limit].name.as_deref().expect("the limit has a name")
            }
            Self::Plan(plan, limit) => {
                plan.limits[*limit].name.as_deref().expect("the limit has a name")
            }
            Self::Own(name) => name,
        }
    }
}

impl fmt::Debug for LimitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl fmt::Display for LimitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl PartialEq for LimitName {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for LimitName {}
