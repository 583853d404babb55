//! The answer to a request: one status per descriptor, from the rulings on its claims.

pub(super) mod outcome;

use std::cmp::Reverse;
use std::mem;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

pub use self::outcome::{Limited, Load, Outcome, Status};
use super::ask::{Ask, Asked, Source};
use super::holds::Issued;
use super::lists::Statuses;
use super::mode::Mode;
use super::report::Report;
use super::resolve::{Resolution, Resolved, Target};
use super::snapshot::SnapshotRef;
use crate::domain::{Claim, Limit, Part, Verdict};
use crate::telemetry::metrics::Answered;

const DAY: Duration = Duration::from_hours(24);

/// The answer to one request. In a box, because it is moved from layer to layer: flags that were
/// just written as bytes and are copied as words make each copy wait.
#[derive(Clone, Debug)]
pub struct Decision(Box<Decided>);

/// The contents of a [`Decision`].
#[derive(Clone, Debug)]
pub struct Decided {
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

impl Decision {
    /// Its contents, out of the box.
    pub fn into_inner(self) -> Decided {
        *self.0
    }
}

impl From<Decided> for Decision {
    fn from(decided: Decided) -> Self {
        Self(Box::new(decided))
    }
}

impl Deref for Decision {
    type Target = Decided;

    fn deref(&self) -> &Decided {
        &self.0
    }
}

impl DerefMut for Decision {
    fn deref_mut(&mut self) -> &mut Decided {
        &mut self.0
    }
}

impl Decided {
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
        let failed = if ruling.reading.passed { Vec::new() } else { vec![asked.report.clone()] };
        return Outcome::Limited(numbers(claim, asked, ruling.wait, failed));
    }
    let all = || ask.claims_of(part).map(|(claim, asked)| (claim, asked, asked.ruling()));
    if let Some((claim, asked)) = ask.worst_of(part).and_then(|place| ask.claim(place)) {
        let over = all().filter(|(_, _, ruling)| !ruling.reading.passed);
        let over = over.map(|(_, asked, _)| asked.report.clone()).collect();
        return Outcome::Limited(numbers(claim, asked, Duration::ZERO, over));
    }
    let tightest = all().min_by_key(|(_, _, ruling)| {
        let reading = ruling.reading;
        (!ruling.counted(), reading.remaining, Reverse(reading.reset_after))
    });
    tightest.map_or(Outcome::NoLimit, |(claim, asked, _)| {
        let wait = all().map(|(_, _, ruling)| ruling.wait).max().unwrap_or_default();
        Outcome::Limited(numbers(claim, asked, wait, Vec::new()))
    })
}

/// The numbers of a limit: of its descriptor `wait` is the longest wait, and these have failed.
fn numbers(claim: &Claim, asked: &Asked, wait: Duration, failed: Vec<Report>) -> Limited {
    let ruling = asked.ruling();
    let reading = &ruling.reading;
    let (remaining, reset_after, retry_after, wait) = if reading.passed {
        (reading.remaining, reading.reset_after, Some(Duration::ZERO), wait)
    } else {
        let retry_after = reading.retry_after;
        (0, retry_after.unwrap_or_else(|| never(&claim.limit)), retry_after, Duration::ZERO)
    };
    Limited {
        passed: reading.passed,
        counted: ruling.counted(),
        limit: asked.report.clone(),
        remaining,
        reset_after,
        retry_after,
        wait,
        failed,
        load: Load::of(claim, reading),
    }
}

/// The time to report where the same request never passes.
fn never(limit: &Limit) -> Duration {
    if limit.is_blocked() { limit.period().max(DAY) } else { limit.period() }
}
