//! The hits that a descriptor asks of a limit: by its cost, and the estimate where it holds.

use std::sync::Arc;

use crate::domain::{Hits, Key, Limit};
use crate::limiter::ask::{Ask, Basis};
use crate::limiter::estimates::Learned;
use crate::limiter::holds::unnamed;
use crate::limiter::request::{Descriptor, Usage};
use crate::policy::{Cost, Estimate, HoldTerms, Rule, RuleLimit};

/// The limit of `rule` whose terms go for `limit`, which stands in for it: the first that holds, if
/// it does; with a handle or without, as it does.
pub(super) fn terms_of<'r>(
    rule: Option<&'r Rule>,
    limit: &Limit,
) -> Option<(usize, &'r RuleLimit)> {
    if limit.is_concurrency() || !(limit.holds() || limit.settles()) {
        return None;
    }
    let fits = |own: &RuleLimit| own.hold().is_some_and(|terms| terms.unnamed == limit.settles());
    rule?.limits.iter().enumerate().find(|(_, own)| fits(own))
}

/// The hits that a descriptor asks of a limit.
pub(super) struct Wanted<'a> {
    pub(super) descriptor: &'a Descriptor,
    pub(super) limit: &'a Limit,
    /// The limit of the rule whose terms it goes by.
    pub(super) terms: Option<(usize, &'a RuleLimit)>,
}

impl<'a> Wanted<'a> {
    /// The terms of holds without a handle.
    fn unnamed(&self) -> Option<&'a HoldTerms> {
        let (_, own) = self.terms?;
        own.hold().filter(|terms| terms.unnamed && self.limit.settles())
    }

    /// The counter of holds without a handle on the counter `key`, if these hits are one, and its
    /// limit.
    pub(super) fn slot(&self, key: &Key, (hits, basis): (Hits, Basis)) -> Option<(Key, Limit)> {
        let is_hold = basis == Basis::Rule && matches!(hits, Hits::Take(_));
        unnamed::slots(key, self.unnamed().filter(|_| is_hold)?)
    }

    /// Notes in `ask` what the claim pushed last holds, or ends.
    pub(super) fn note(&self, ask: &mut Ask, basis: Basis) {
        let ends_or_counts = matches!(basis, Basis::Reported(_) | Basis::Unnamed);
        if self.limit.holds() || ends_or_counts {
            let (limit, terms) = self.terms.map_or((0, None), |(i, own)| (i, own.hold().copied()));
            ask.note_held(terms, limit, basis);
        }
    }

    /// The hits, and where those of a hold come from. `learned`: what is learned under a limit of
    /// the rule. A slot has an id of the request that it is released by.
    pub(super) fn hits(
        &self,
        ask: &mut Ask,
        learned: impl FnOnce(usize) -> Option<&'a Arc<Learned>>,
    ) -> (Hits, Basis) {
        let Self { descriptor, limit, terms } = *self;
        if limit.is_concurrency() {
            return (slot_of(descriptor.hits, ask), Basis::Request);
        }
        let hits = descriptor.hits_of(limit);
        let Some((position, own)) = terms else { return (hits, Basis::Request) };
        let hits = match own.cost() {
            Cost::Hits => hits,
            Cost::Fixed(cost) => return (fixed(hits, *cost), Basis::Rule),
            cost @ Cost::Weighted(_) => weighted(hits, cost, descriptor.usage.as_deref()),
        };
        if let Some(terms) = self.unnamed() {
            return match hits {
                Hits::Peek(_) if descriptor.own_hits => (Hits::Take(terms.max), Basis::Rule),
                // It is settled before the request is decided.
                Hits::Book(cost) => (Hits::Peek(0), Basis::Reported(cost)),
                hits => (hits, Basis::Request),
            };
        }
        match (hits, own.hold()) {
            (Hits::Take(hits), Some(terms)) => {
                let (hits, basis) = match terms.estimate {
                    _ if descriptor.own_hits => (hits, Basis::Request),
                    Estimate::Asked => (hits, Basis::Request),
                    Estimate::Hits(default) => (default.max(hits), Basis::Rule),
                    Estimate::Learned(_) => {
                        match learned(position).and_then(|all| all.estimate()) {
                            Some(estimate) => (estimate.max(hits), Basis::Learned),
                            None => (terms.max, Basis::Most),
                        }
                    }
                };
                (Hits::Take(terms.within(hits)), basis)
            }
            // A caller that states no hits at all still reserves the least.
            (Hits::Peek(_), Some(terms)) if descriptor.own_hits => {
                (Hits::Take(terms.within(0)), Basis::Request)
            }
            (hits, _) => (hits, Basis::Request),
        }
    }
}

/// A slot of a concurrency limit.
pub(super) fn slot_of(hits: Hits, ask: &mut Ask) -> Hits {
    match hits {
        Hits::Take(_) | Hits::Book(_) | Hits::Hold(_) => {
            let position = ask.len();
            // Beyond so many the request is out of bounds, and asks for nothing.
            ask.hold_id().of_claim(position).map_or(Hits::Peek(1), Hits::Hold)
        }
        Hits::Peek(_) => Hits::Peek(1),
        Hits::Refund(_) => Hits::Refund(0),
    }
}

/// The hits at a limit that takes the same of every request.
const fn fixed(hits: Hits, cost: u64) -> Hits {
    match hits {
        Hits::Take(_) | Hits::Book(_) => Hits::Take(cost),
        Hits::Peek(_) => Hits::Peek(cost),
        hits => hits,
    }
}

/// The hits at a limit that counts kinds by their weights. Of kinds that count nothing none are
/// taken, as of a request for none.
fn weighted(hits: Hits, cost: &Cost, usage: Option<&Usage>) -> Hits {
    let weigh = |hits: u64| match usage {
        Some(usage) => cost.of(usage.kinds()),
        None => cost.of(std::iter::once((None, hits))),
    };
    match hits {
        Hits::Take(hits) => match weigh(hits) {
            0 => Hits::Peek(1),
            hits => Hits::Take(hits),
        },
        Hits::Book(hits) => Hits::Book(weigh(hits)),
        Hits::Refund(hits) => Hits::Refund(weigh(hits)),
        hits @ (Hits::Peek(_) | Hits::Hold(_)) => hits,
    }
}
