//! The costs of a request that has ended, by limit: what its descriptors state, as each limit
//! counts it, and what limits learn from that.

use std::sync::Arc;

use super::plan::Ended;
use crate::domain::Settled;
use crate::limiter::estimates::Learned;
use crate::limiter::resolve::{Resolution, Target};
use crate::policy::Cost;

/// Costs to learn from, once a settlement has taken effect.
#[derive(Debug, Default)]
pub(in crate::limiter) struct CostSamples(Vec<(Arc<Learned>, u64)>);

impl CostSamples {
    /// True if no limit learns.
    pub(in crate::limiter) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Records them, unless the request was settled before or too late: who delivers one
    /// settlement often must not move an estimate.
    pub(in crate::limiter) fn record(&self, outcomes: &[Option<Settled>]) {
        if outcomes.iter().any(|outcome| matches!(outcome, Some(Settled::Now))) {
            self.0.iter().for_each(|(learned, cost)| learned.note(*cost));
        }
    }
}

/// The cost of `ended` by claim of `resolution`, which has its descriptors; none: it is not known.
pub(in crate::limiter) fn costs(
    resolution: &Resolution,
    ended: &Ended<'_>,
) -> (Vec<Option<u64>>, CostSamples) {
    let (descriptors, ask) = (resolution.descriptors(), &resolution.ask);
    let never_ran = ended.fared.never_ran().then_some(0);
    let (mut costs, mut samples) = (vec![never_ran; ask.len()], CostSamples::default());
    for (resolved, (_, usage)) in descriptors.iter().zip(&ended.descriptors) {
        let (Target::Part(part), Some(usage)) = (&resolved.target, usage) else { continue };
        for held in ask.held().iter().filter(|held| part.claims.contains(&held.claim)) {
            let rule = resolved.rule.as_ref().filter(|_| held.terms.is_some());
            let limit = rule.and_then(|rule| rule.limits.get(held.limit));
            let cost = limit.map_or(&Cost::Hits, |limit| limit.cost()).of(usage.kinds());
            if let Some(of_claim) = costs.get_mut(held.claim) {
                *of_claim = Some(cost);
            }
            if let Some(learned) = rule.and_then(|rule| rule.learned(held.limit)) {
                samples.0.push((Arc::clone(learned), cost));
            }
        }
    }
    (costs, samples)
}
