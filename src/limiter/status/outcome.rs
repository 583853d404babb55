//! The status of one descriptor: what was decided on it, and by which limit.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::{Claim, Reading};
use crate::limiter::report::Report;
use crate::limiter::resolve::plan::ClientPlan;
use crate::limiter::snapshot::RuleRef;
use crate::limits::Client;
use crate::telemetry::metrics::LimitOf;

/// The status of one descriptor.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// The rule that matched.
    pub rule: Option<RuleRef>,
    /// The client that went before the rule.
    pub client: Option<Arc<Client>>,
    /// The plan of the client; or one that is not there, in whose place the rule limits.
    pub plan: ClientPlan,
    /// The decision on it.
    pub outcome: Outcome,
    /// The descriptor's limits do not deny.
    pub shadow: bool,
    /// The descriptor counts among the quota descriptors, which deny only when all of them fail.
    pub quota: bool,
    /// Decided without the store.
    pub degraded: bool,
    /// Decided by the share of one of so many replicas, without the store.
    pub replicas: Option<u32>,
}

/// The decision on one descriptor.
#[derive(Clone, Debug, Default)]
pub enum Outcome {
    /// Nothing limits it: limits are off, or other limits replace those of its rule.
    #[default]
    NoLimit,
    /// Nothing limits it, as no rule matches and it is no client.
    NoRule,
    /// Nothing limits it, as no policy and no client names its domain.
    UnknownDomain,
    /// A client or a rule says that nothing limits it.
    Unlimited,
    /// It has limits; the one that matters most is reported.
    Limited(Limited),
    /// The override cannot be understood and nothing else matched: over its limit.
    InvalidOverride,
    /// The request is larger than what is looked at: over its limit.
    OutOfBounds,
    /// It says how a request has ended, and asks for nothing.
    Settled,
    /// The same with a handle that is not good: over its limit.
    InvalidHold,
}

/// The numbers of the limit that matters most.
#[derive(Clone, Debug)]
pub struct Limited {
    /// True if all limits of the descriptor passed.
    pub passed: bool,
    /// True if a counter decided: that of the store, a reading of it that was remembered, or the
    /// share of this process. False if `allow` or `deny` did: the remaining hits are unknown then.
    pub counted: bool,
    /// The limit.
    pub limit: Report,
    /// Hits left once this and the earlier passing descriptors are charged; 0 when it failed.
    pub remaining: u64,
    /// Passed: until full again. Failed: until the same request would pass. If it never passes: the
    /// period, and for a limit of zero at least a day.
    pub reset_after: Duration,
    /// Zero when it passed; none: never.
    pub retry_after: Option<Duration>,
    /// Passed: the wait before the request may go on, if it is admitted. The longest of all limits
    /// of the descriptor.
    pub wait: Duration,
    /// The limits that failed.
    pub failed: Vec<Report>,
    /// The hits on it.
    pub load: Load,
}

/// The hits that a limit holds, as its counter has them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Load {
    /// The most hits that fit.
    pub capacity: u64,
    /// Those used, together with those that this descriptor was charged.
    pub used: u64,
    /// True if the descriptor's hits are among them; one that fails is charged by some limits only.
    pub charged: bool,
}

impl Load {
    pub(super) fn of(claim: &Claim, reading: &Reading) -> Self {
        let capacity = claim.limit.capacity();
        let used = capacity.saturating_sub(reading.remaining).saturating_add(reading.over);
        Self { capacity, used, charged: reading.passed || !claim.is_conditional() }
    }

    /// True if at least `ratio` of the capacity is used.
    pub fn is_near(self, ratio: f32) -> bool {
        self.used as f32 >= self.capacity as f32 * ratio
    }
}

impl Outcome {
    /// A short name of the reason for which no limit is reported; none: one is, or limits are off.
    pub const fn reason(&self) -> Option<&'static str> {
        match self {
            Self::NoLimit | Self::Unlimited | Self::Limited(_) | Self::Settled => None,
            Self::NoRule => Some("no_rule"),
            Self::UnknownDomain => Some("unknown_domain"),
            Self::InvalidOverride => Some("invalid_override"),
            Self::OutOfBounds => Some("out_of_bounds"),
            Self::InvalidHold => Some("invalid_hold"),
        }
    }
}

impl Status {
    /// Returns true if the descriptor is over a limit, shadowed or not.
    pub const fn failed(&self) -> bool {
        match &self.outcome {
            Outcome::NoLimit
            | Outcome::NoRule
            | Outcome::UnknownDomain
            | Outcome::Unlimited
            | Outcome::Settled => false,
            Outcome::Limited(limited) => !limited.passed,
            Outcome::InvalidOverride | Outcome::OutOfBounds | Outcome::InvalidHold => true,
        }
    }

    /// Returns true if the answer says that the descriptor is over its limit.
    pub const fn over_limit(&self) -> bool {
        self.failed() && !self.shadow
    }

    /// The label of the rule, or in parentheses what limits in its place, as in the labels of
    /// decisions.
    pub fn rule_label(&self) -> &str {
        match (&self.rule, &self.client) {
            (Some(rule), _) => &rule.label,
            (None, Some(_)) => LimitOf::CLIENT,
            (None, None) => LimitOf::OVERRIDE,
        }
    }

    /// The limit that matters most, if its numbers are known.
    pub fn counted(&self) -> Option<&Limited> {
        self.limited().filter(|limited| limited.counted)
    }

    /// The limit that matters most.
    pub const fn limited(&self) -> Option<&Limited> {
        match &self.outcome {
            Outcome::Limited(limited) => Some(limited),
            _ => None,
        }
    }
}
