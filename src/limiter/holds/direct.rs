//! Ends and renewals that a caller asks for itself, and waits for.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::plan::{Ended, ended};
use crate::domain::Settled;
use crate::limiter::Limiter;
use crate::limiter::request::{Descriptor, Request};
use crate::limiter::signals::Fared;
use crate::store::{Deadline, LimitStore};
use crate::telemetry::metrics::HoldState;

/// A hold, by its handle and its descriptors.
#[derive(Clone, Debug)]
pub struct End<'m> {
    /// The namespace of the policies.
    pub domain: &'m [u8],
    /// The text of the handle.
    pub handle: &'m [u8],
    /// The descriptors, and what the request has cost under each; none: it is not known.
    pub descriptors: Vec<(Descriptor<'m>, Option<u64>)>,
    /// The report on how the request has fared.
    pub fared: Fared,
}

/// The reason why a hold cannot be ended or renewed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadEnd {
    /// The handle was not issued for the domain.
    #[error("no handle of this domain, or one of another secret")]
    Handle,
    /// The descriptors are more, or larger, than a request may have.
    #[error("beyond the bounds of a request")]
    OutOfBounds,
}

/// The outcome of an end, over all descriptors: that of the one that got furthest.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Ending {
    /// The handle is for other counters.
    Unmatched,
    /// The hold had ended by itself.
    Late,
    /// The handle was settled or renewed before.
    Again,
    /// It took effect.
    Settled,
}

impl From<Settled> for Ending {
    fn from(settled: Settled) -> Self {
        match settled {
            Settled::Now | Settled::Unguarded => Self::Settled,
            Settled::Again => Self::Again,
            Settled::Late => Self::Late,
        }
    }
}

/// The outcome of a renewal.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Renewed {
    /// The text of the new handle; none: nothing was renewed.
    pub handle: Option<String>,
    /// The time after which the hold ends by itself.
    pub expires_in: Duration,
    /// Every charge of the hold was renewed.
    pub is_whole: bool,
    /// The store has answered about every charge.
    pub is_answered: bool,
}

impl<S: LimitStore> Limiter<S> {
    /// Ends a hold. `None`: the store does not answer by `due`; it is told later.
    ///
    /// # Cancel safety
    /// A dropped call ends the hold all the same.
    pub async fn end_hold(&self, end: &End<'_>, due: Instant) -> Result<Option<Ending>, BadEnd> {
        self.started(due).await;
        let ended = self.ended(end)?;
        let (sent, samples) = self.settle(end.domain, &ended);
        let outcomes = join_all(sent.into_iter().map(|sent| sent.by(due))).await;
        samples.record(&outcomes);
        let reported = (&*ended.handle.reports, ended.fared);
        self.shared.report(reported, self.held_for(&ended), &outcomes);
        let outcomes: Option<Vec<Settled>> = outcomes.into_iter().collect();
        let furthest = |all: Vec<Settled>| all.into_iter().map(Ending::from).max();
        Ok(outcomes.map(|all| furthest(all).unwrap_or(Ending::Unmatched)))
    }

    /// Renews a hold, if the store answers by `due`.
    ///
    /// # Cancel safety
    /// A dropped call may have renewed it: then it ends by itself.
    pub async fn renew_hold(&self, end: &End<'_>, due: Instant) -> Result<Renewed, BadEnd> {
        self.started(due).await;
        let ended = self.ended(end)?;
        let ask = self.shared.resolve_ended(end.domain, &ended).ask;
        let key = self.shared.holds.signing();
        let renewal = self.settlements.renew(&ended, &ask, &key, due).await;
        let text = |handle| key.write(end.domain, &handle);
        Ok(Renewed {
            handle: renewal.handle.map(text),
            expires_in: renewal.left,
            is_whole: renewal.is_whole,
            is_answered: renewal.is_answered,
        })
    }

    /// Before there are policies a hold has no counters.
    async fn started(&self, due: Instant) {
        if let Some(start) = &self.start {
            start.wait(Deadline::from(due)).await;
        }
    }

    fn ended<'m>(&self, end: &End<'m>) -> Result<Ended<'m>, BadEnd> {
        let descriptors = end.descriptors.iter().map(|(descriptor, _)| descriptor.clone());
        let request = Request { domain: end.domain, descriptors: descriptors.collect() };
        if !self.shared.bounds.hold(&request) {
            return Err(BadEnd::OutOfBounds);
        }
        let snapshot = self.shared.policies.current();
        let signs = snapshot.policies.domain(end.domain).and_then(|domain| domain.signs());
        let named = (end.domain, end.handle);
        let beside = (signs, &*self.shared.holds);
        ended(named, &end.descriptors, end.fared, beside).ok_or_else(|| {
            self.shared.holds.metrics.count(HoldState::Invalid);
            BadEnd::Handle
        })
    }
}
