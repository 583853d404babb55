//! What is known of a claim beside it: the terms of its rule, and the ruling of the layers.

use std::time::Duration;

use crate::domain::{Claim, Reading, Timestamp};
use crate::limiter::report::Report;
use crate::policy::{LeaseTerms, OnStoreFailure};

/// A reading, and its source.
#[derive(Clone, Copy, Debug)]
pub struct Ruling {
    /// The decision on the claim.
    pub reading: Reading,
    /// The source of the decision.
    pub source: Source,
    /// The wait of its hits, if the request is admitted.
    pub wait: Duration,
}

/// The source of a decision on a claim.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Source {
    /// The store, or what is as good as the store.
    Store,
    /// The share of this process, one of `replicas`, because the store gave no answer.
    Share {
        /// The number of shares.
        replicas: u32,
    },
    /// `allow` or `deny`, because the store gave no answer. Nothing was counted.
    Mode,
    /// Nothing: the store gave no answer, and the caller of the request decides.
    Nothing,
}

/// The wait that a denial without a counter reports.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl Ruling {
    /// The ruling of a failure mode that counts nothing.
    pub(in crate::limiter) const fn uncounted(passed: bool) -> Self {
        let reading = Reading {
            passed,
            remaining: 0,
            over: 0,
            retry_after: Some(if passed { Duration::ZERO } else { RETRY_AFTER }),
            reset_after: RETRY_AFTER,
            leased_until: None,
            at: Timestamp::EPOCH,
        };
        Self { reading, source: Source::Mode, wait: Duration::ZERO }
    }

    /// No ruling, as far as a claim can have none: one that must not be used as a denial.
    pub(in crate::limiter) const fn unanswered() -> Self {
        Self { source: Source::Nothing, ..Self::uncounted(false) }
    }

    /// The ruling of a store that has read `claim`, or a share of it, so.
    pub(in crate::limiter) fn of_store(claim: &Claim, reading: Reading) -> Self {
        Self { wait: claim.limit.wait(claim.hits, &reading), ..Self::from(reading) }
    }

    /// True if the store did not decide.
    pub fn degraded(&self) -> bool {
        self.source != Source::Store
    }

    /// True if the numbers of the reading are those of a counter.
    pub fn counted(&self) -> bool {
        !matches!(self.source, Source::Mode | Source::Nothing)
    }
}

impl From<Reading> for Ruling {
    /// A reading that is the store's, or as good as the store's.
    fn from(reading: Reading) -> Self {
        Self { reading, source: Source::Store, wait: Duration::ZERO }
    }
}

/// The record of a claim.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The terms of its rule.
    pub traits: Traits,
    /// The report of its limit.
    pub report: Report,
    pub(super) ruling: Option<Ruling>,
}

/// The terms of a claim's rule, which layers apply.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traits {
    /// The answer while the store gives none; none: that of the settings.
    pub on_store_failure: Option<OnStoreFailure>,
    /// The terms on which tokens of it are leased.
    pub lease: Option<LeaseTerms>,
}

impl Asked {
    /// The ruling of the layers on the claim.
    ///
    /// # Panics
    /// Before the layers have decided.
    #[expect(clippy::expect_used, reason = "the layers end in a store with failover, which joins")]
    pub fn ruling(&self) -> &Ruling {
        self.ruling.as_ref().expect("the layers rule on every claim")
    }

    /// The ruling on the claim, if there is one yet.
    pub(in crate::limiter) const fn known(&self) -> Option<&Ruling> {
        self.ruling.as_ref()
    }

    pub(super) fn passed(&self) -> bool {
        self.ruling().reading.passed
    }
}
