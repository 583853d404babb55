//! The answer to a request: one status per descriptor, from the rulings on its claims.

use std::cmp::Reverse;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use super::ask::{Ask, Asked, Source};
use super::holds::Issued;
use super::lists::Statuses;
use super::mode::Mode;
use super::report::Report;
use super::resolve::{ClientPlan, Resolution, Resolved, Target};
use super::snapshot::{RuleRef, SnapshotRef};
use crate::domain::{Claim, Limit, Part, Reading, Verdict};
use crate::limits::Client;
use crate::telemetry::metrics::{Answered, LimitOf};

const DAY: Duration = Duration::from_hours(24);

/// The answer to one request.
#[derive(Clone, Debug)]
pub struct Decision {
    /// May it pass?
    pub verdict: Verdict,
    /// The reason for which the caller decides instead: its gRPC call fails with `UNAVAILABLE`.
    /// Nothing else of the decision counts then.
    pub unavailable: Option<&'static str>,
    /// One per descriptor, same order.
    pub statuses: Statuses,
    /// The store was asked.
    pub asked: bool,
    /// The mode in force for the domain.
    pub mode: Mode,
    /// The policies it was decided by.
    pub snapshot: SnapshotRef,
    /// The hold that it has made.
    pub hold: Option<Arc<Issued>>,
}

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
    fn of(claim: &Claim, reading: &Reading) -> Self {
        let capacity = claim.limit.capacity();
        let used = capacity.saturating_sub(reading.remaining).saturating_add(reading.over);
        Self { capacity, used, charged: reading.passed || !claim.is_conditional() }
    }

    /// True if at least `ratio` of the capacity is used.
    pub fn is_near(self, ratio: f32) -> bool {
        self.used as f32 >= self.capacity as f32 * ratio
    }
}

impl Decision {
    /// Returns true if the request passes because nothing names its domain.
    pub fn is_of_unknown_domain(&self) -> bool {
        // All statuses are alike then.
        self.statuses.first().is_some_and(|first| matches!(first.outcome, Outcome::UnknownDomain))
    }

    /// The outcome, as durations are counted.
    pub fn answered(&self) -> Answered {
        let degraded = || self.statuses.iter().any(|status| status.degraded);
        match self.verdict {
            _ if self.unavailable.is_some() || degraded() => Answered::Degraded,
            Verdict::Admit => Answered::Admitted,
            Verdict::Deny => Answered::OverLimit,
        }
    }

    /// The time until every descriptor that is over its limit would pass. None: all pass, or one
    /// never does.
    pub fn retry_after(&self) -> Option<Duration> {
        let over = self.statuses.iter().filter(|status| status.over_limit());
        let waits: Option<Vec<Duration>> =
            over.map(|status| status.limited()?.retry_after).collect();
        waits?.into_iter().max()
    }

    /// The wait before an admitted request may go on: the longest of its descriptors, but those in
    /// shadow mode.
    pub fn wait(&self) -> Duration {
        if self.verdict == Verdict::Deny || self.unavailable.is_some() {
            return Duration::ZERO;
        }
        let waits = self.statuses.iter().filter(|status| !status.shadow);
        waits.filter_map(|status| Some(status.limited()?.wait)).max().unwrap_or_default()
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

/// The statuses of a resolved request on which the layers have ruled.
pub(super) fn statuses(Resolution { mut ask }: Resolution) -> Statuses {
    let mut statuses = mem::take(&mut ask.lists.statuses);
    let mut resolved = mem::take(&mut ask.lists.resolved);
    statuses.extend(resolved.drain(..).map(|resolved| status(resolved, &ask)));
    (ask.lists.statuses, ask.lists.resolved) = (statuses, resolved);
    Statuses(ask.lists)
}

fn status(Resolved { rule, client, plan, target, .. }: Resolved, ask: &Ask) -> Status {
    let mut status = Status { rule, client, plan, ..Status::default() };
    match target {
        Target::Nothing if status.rule.is_none() && status.client.is_none() => {
            status.outcome = Outcome::NoRule;
        }
        Target::Nothing => {}
        Target::Unlimited => status.outcome = Outcome::Unlimited,
        Target::InvalidOverride(part) => {
            status.outcome = Outcome::InvalidOverride;
            status.shadow = part.shadow;
        }
        Target::Part(part) => {
            status.outcome = limited(&part, ask);
            (status.shadow, status.quota) = (part.shadow, part.quota);
            for (_, asked) in ask.claims_of(&part) {
                let ruling = asked.ruling();
                status.degraded |= ruling.degraded();
                if let Source::Share { replicas } = ruling.source {
                    status.replicas.get_or_insert(replicas);
                }
            }
        }
    }
    status
}

fn limited(part: &Part, ask: &Ask) -> Outcome {
    // Most descriptors have one limit, which needs no search.
    if part.claims.len() == 1
        && let Some((claim, asked)) = ask.claim(part.claims.start)
    {
        let ruling = asked.ruling();
        return Outcome::Limited(if ruling.reading.passed {
            passed(claim, asked, ruling.wait)
        } else {
            failed(claim, asked, vec![asked.report.clone()])
        });
    }
    let all = || ask.claims_of(part).map(|(claim, asked)| (claim, asked, asked.ruling()));
    if let Some((claim, asked)) = ask.worst_of(part).and_then(|place| ask.claim(place)) {
        let over = all().filter(|(_, _, ruling)| !ruling.reading.passed);
        let over = over.map(|(_, asked, _)| asked.report.clone()).collect();
        return Outcome::Limited(failed(claim, asked, over));
    }
    let tightest = all().min_by_key(|(_, _, ruling)| {
        let reading = ruling.reading;
        (!ruling.counted(), reading.remaining, Reverse(reading.reset_after))
    });
    tightest.map_or(Outcome::NoLimit, |(claim, asked, _)| {
        let wait = all().map(|(_, _, ruling)| ruling.wait).max().unwrap_or_default();
        Outcome::Limited(passed(claim, asked, wait))
    })
}

/// The numbers of a limit that failed, with all of the descriptor that did.
fn failed(claim: &Claim, asked: &Asked, failed: Vec<Report>) -> Limited {
    let ruling = asked.ruling();
    let reading = &ruling.reading;
    Limited {
        passed: false,
        counted: ruling.counted(),
        limit: asked.report.clone(),
        remaining: 0,
        reset_after: reading.retry_after.unwrap_or_else(|| never(&claim.limit)),
        retry_after: reading.retry_after,
        wait: Duration::ZERO,
        failed,
        load: Load::of(claim, reading),
    }
}

/// The numbers of a limit that passed, as all of the descriptor did, of which one has this wait.
fn passed(claim: &Claim, asked: &Asked, wait: Duration) -> Limited {
    let ruling = asked.ruling();
    let reading = &ruling.reading;
    Limited {
        passed: true,
        counted: ruling.counted(),
        limit: asked.report.clone(),
        remaining: reading.remaining,
        reset_after: reading.reset_after,
        retry_after: Some(Duration::ZERO),
        wait,
        failed: Vec::new(),
        load: Load::of(claim, reading),
    }
}

/// The time to report where the same request never passes.
fn never(limit: &Limit) -> Duration {
    if limit.is_blocked() { limit.period().max(DAY) } else { limit.period() }
}
