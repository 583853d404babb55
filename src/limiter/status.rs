//! What the caller is told: one status per descriptor, from the rulings on its claims.

use std::sync::Arc;
use std::time::Duration;

use super::layers::failover::Ruling;
use super::mode::Mode;
use super::resolve::{Report, Resolution, Resolved, Target};
use super::snapshot::Snapshot;
use crate::domain::{Limit, Part, Verdict};
use crate::limits::Client;

/// The answer to one request.
#[derive(Clone, Debug)]
pub struct Decision {
    /// May it pass?
    pub verdict: Verdict,
    /// One per descriptor, same order.
    pub statuses: Vec<Status>,
    /// The mode in force for the domain.
    pub mode: Mode,
    /// The policies it was decided by.
    pub snapshot: Arc<Snapshot>,
}

/// What one descriptor gets.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// The index of the rule that matched.
    pub rule: Option<u32>,
    /// The client that went before the rule.
    pub client: Option<Arc<Client>>,
    /// What limits it.
    pub outcome: Outcome,
    /// The descriptor's limits do not deny.
    pub shadow: bool,
    /// Decided without the store.
    pub degraded: bool,
}

/// How a descriptor fared.
#[derive(Clone, Debug, Default)]
pub enum Outcome {
    /// Nothing limits it.
    #[default]
    NoLimit,
    /// A client or a rule says that nothing limits it.
    Unlimited,
    /// Limits were asked; the one that matters most is reported.
    Limited(Limited),
    /// The override cannot be understood and nothing else matched: over its limit.
    InvalidOverride,
    /// The request is larger than what is looked at: over its limit.
    OutOfBounds,
}

/// The numbers of the limit that matters most.
#[derive(Clone, Debug)]
pub struct Limited {
    /// Whether all limits of the descriptor passed.
    pub passed: bool,
    /// The limit.
    pub limit: Report,
    /// Hits left once this and the earlier passing descriptors are charged; 0 when it failed.
    pub remaining: u64,
    /// Passed: until full again. Failed: until the same request would pass, or the period if it never can.
    pub reset_after: Duration,
    /// Zero when it passed; none: never.
    pub retry_after: Option<Duration>,
    /// The limits that failed.
    pub failed: Vec<Report>,
}

impl Status {
    /// Whether the descriptor is over a limit, shadowed or not.
    pub const fn failed(&self) -> bool {
        match &self.outcome {
            Outcome::NoLimit | Outcome::Unlimited => false,
            Outcome::Limited(limited) => !limited.passed,
            Outcome::InvalidOverride | Outcome::OutOfBounds => true,
        }
    }

    /// Whether the caller is told that the descriptor is over its limit.
    pub const fn over_limit(&self) -> bool {
        self.failed() && !self.shadow
    }

    /// The limit that matters most.
    pub const fn limited(&self) -> Option<&Limited> {
        match &self.outcome {
            Outcome::Limited(limited) => Some(limited),
            _ => None,
        }
    }
}

/// The statuses of a resolved request. One ruling per claim, same order.
pub(super) fn statuses(resolution: &Resolution, rulings: &[Ruling]) -> Vec<Status> {
    resolution.descriptors.iter().map(|resolved| status(resolved, resolution, rulings)).collect()
}

fn status(resolved: &Resolved, resolution: &Resolution, rulings: &[Ruling]) -> Status {
    let part = |i: usize| resolution.ask.group.parts.get(i);
    let (outcome, shadow, degraded) = match resolved.target {
        Target::Nothing => (Outcome::NoLimit, false, false),
        Target::Unlimited => (Outcome::Unlimited, false, false),
        Target::InvalidOverride(i) => {
            (Outcome::InvalidOverride, part(i).is_some_and(|part| part.shadow), false)
        }
        Target::Part(i) => part(i).map_or_else(Default::default, |part| {
            let rulings_of = rulings.get(part.claims.clone()).unwrap_or_default();
            let degraded = rulings_of.iter().any(|ruling| ruling.degraded);
            (limited(part, resolution, rulings), part.shadow, degraded)
        }),
    };
    Status { rule: resolved.rule, client: resolved.client.clone(), outcome, shadow, degraded }
}

fn limited(part: &Part, resolution: &Resolution, rulings: &[Ruling]) -> Outcome {
    let claims = resolution.ask.group.claims_of(part).iter().map(|claim| &claim.limit);
    let reports = resolution.reports.get(part.claims.clone()).unwrap_or_default();
    let rulings = rulings.get(part.claims.clone()).unwrap_or_default();
    let all = || claims.clone().zip(reports).zip(rulings).map(|((l, r), ruling)| (l, r, ruling));
    let failed = || all().filter(|(_, _, ruling)| !ruling.reading.passed);
    let worst =
        failed().max_by_key(|(_, _, ruling)| ruling.reading.retry_after.unwrap_or(Duration::MAX));
    if let Some((limit, report, ruling)) = worst {
        let retry_after = ruling.reading.retry_after;
        return Outcome::Limited(Limited {
            passed: false,
            limit: report.clone(),
            remaining: 0,
            reset_after: retry_after.unwrap_or_else(|| Limit::period(limit)),
            retry_after,
            failed: failed().map(|(_, report, _)| report.clone()).collect(),
        });
    }
    let tightest = all().min_by_key(|(_, _, Ruling { reading, .. })| {
        (reading.remaining, std::cmp::Reverse(reading.reset_after))
    });
    tightest.map_or(Outcome::NoLimit, |(_, report, ruling)| {
        Outcome::Limited(Limited {
            passed: true,
            limit: report.clone(),
            remaining: ruling.reading.remaining,
            reset_after: ruling.reading.reset_after,
            retry_after: Some(Duration::ZERO),
            failed: Vec::new(),
        })
    })
}
