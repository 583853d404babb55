//! The hits that a descriptor asks of a limit: by its cost, and the estimate where it holds.

use std::sync::Arc;

use crate::domain::{Hits, Limit};
use crate::limiter::ask::{Ask, Basis};
use crate::limiter::estimates::Learned;
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
pub(super) struct Wanted<'a, 'm> {
    pub(super) descriptor: &'a Descriptor<'m>,
    pub(super) limit: &'a Limit,
    /// The limit of the rule whose terms it goes by.
    pub(super) terms: Option<(usize, &'a RuleLimit)>,
}

impl<'a> Wanted<'a, '_> {
    /// The hits, and what becomes of them. `learned`: the costs of requests before, under a limit
    /// of the rule. A slot has an id of the request that it is released by.
    pub(super) fn hits(
        &self,
        ask: &mut Ask,
        learned: impl FnOnce(usize) -> Option<&'a Arc<Learned>>,
    ) -> (Hits, Use) {
        let Self { descriptor, limit, terms } = *self;
        if limit.is_concurrency() {
            return (slot_of(descriptor.hits, ask), Use::Held(Basis::Request));
        }
        let hits = descriptor.hits_of(limit);
        let Some((position, own)) = terms else { return (hits, Use::AtOnce) };
        let hits = match own.cost() {
            Cost::Hits => hits,
            Cost::Fixed(cost) => fixed(hits, *cost),
            cost @ Cost::Weighted(_) => weighted(hits, cost, descriptor.usage.as_deref()),
        };
        let Some(hold) = own.hold() else { return (hits, Use::AtOnce) };
        if hold.unnamed {
            return match hits {
                Hits::Peek(_) if descriptor.own_hits => (Hits::Take(hold.max), Use::Unnamed(*hold)),
                // It is settled before the request is decided.
                Hits::Book(cost) => (Hits::Peek(0), Use::Reported(*hold, cost)),
                hits => (hits, Use::AtOnce),
            };
        }
        let is_fixed = matches!(own.cost(), Cost::Fixed(_));
        let (hits, basis) = match hits {
            Hits::Take(cost) if is_fixed => (Hits::Take(cost), Basis::Rule),
            Hits::Peek(cost) if is_fixed && descriptor.own_hits => (Hits::Take(cost), Basis::Rule),
            Hits::Take(asked) => {
                let learned = || learned(position).and_then(|costs| costs.estimate());
                let (hits, basis) = estimate(hold, asked, descriptor.own_hits, learned);
                (Hits::Take(hold.within(hits)), basis)
            }
            // A caller that states no hits at all still reserves the least.
            Hits::Peek(_) if descriptor.own_hits => (Hits::Take(hold.within(0)), Basis::Request),
            hits => (hits, Basis::Request),
        };
        (hits, Use::Held(basis))
    }
}

/// The use of the hits of a claim.
#[derive(Clone, Copy, Debug)]
pub(super) enum Use {
    /// They are used when they are taken.
    AtOnce,
    /// They are settled by a handle.
    Held(Basis),
    /// They are settled by a report without a handle, on these terms.
    Unnamed(HoldTerms),
    /// They are none: this cost is reported, and ends a hold on these terms.
    Reported(HoldTerms, u64),
}

/// The hits to reserve of a request for `asked`, and their source. `own`: it states them itself.
fn estimate(
    terms: &HoldTerms,
    asked: u64,
    own: bool,
    learned: impl FnOnce() -> Option<u64>,
) -> (u64, Basis) {
    match terms.estimate {
        _ if own => (asked, Basis::Request),
        Estimate::Asked => (asked, Basis::Request),
        Estimate::Hits(default) => (default.max(asked), Basis::Rule),
        Estimate::Learned(_) => match learned() {
            Some(estimate) => (estimate.max(asked), Basis::Learned),
            None => (terms.max, Basis::Most),
        },
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
