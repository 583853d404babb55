//! The parts of a request in a domain with holds: descriptors that ask for admission, and those
//! with the handle of a request that has ended.
//!
//! Entries that are signs are no part of a counter and are taken out. Of several descriptors that
//! are alike then, as a caller sends one with the number of hits and one without, one asks: with
//! the most hits that are stated, if one states them. Hits of several kinds add up.

use smallvec::SmallVec;

use super::Holds;
use super::handle::{Handle, HandleKey};
use crate::domain::{Hits, SATURATION};
use crate::limiter::request::{Descriptor, Entry, Request, Usage};
use crate::limiter::signals::Fared;
use crate::policy::Signs;

/// The parts of a request.
#[derive(Debug)]
pub(in crate::limiter) struct Plan<'m> {
    /// The descriptors that ask, without signs; each once.
    pub(in crate::limiter) asking: Request<'m>,
    /// By descriptor of the whole request.
    pub(in crate::limiter) roles: Vec<Role>,
    /// The ends of requests.
    pub(in crate::limiter) ended: Vec<Ended<'m>>,
}

/// The role of a descriptor.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::limiter) enum Role {
    /// It asks, as the descriptor of this position in [`Plan::asking`].
    Asks(usize),
    /// It says how a request has ended.
    Ends,
    /// Its handle is not good.
    Invalid,
}

/// The end of a request, by all descriptors with its handle.
#[derive(Debug)]
pub(in crate::limiter) struct Ended<'m> {
    pub(in crate::limiter) handle: Handle,
    pub(in crate::limiter) key: HandleKey,
    /// The text of the handle, by which its descriptors are found.
    text: &'m [u8],
    /// The descriptors without signs, and the cost that each states.
    pub(in crate::limiter) descriptors: Vec<(Descriptor<'m>, Option<Usage<'m>>)>,
    /// The reports on how the request has fared.
    pub(in crate::limiter) fared: Fared,
}

/// The end that a caller names itself, by descriptors and the cost of each; `None` if the handle is
/// not good.
pub(super) fn ended<'m>(
    (domain, text): (&[u8], &'m [u8]),
    descriptors: &[(Descriptor<'m>, Option<u64>)],
    fared: Fared,
    (signs, holds): (Option<&Signs>, &Holds),
) -> Option<Ended<'m>> {
    let (handle, key) = holds.read(domain, text)?;
    let mut ended = Ended { handle, key, text, descriptors: Vec::new(), fared };
    for (descriptor, cost) in descriptors {
        let kind = signs.and_then(|signs| value(descriptor, &signs.kind));
        let usage = cost.map(|cost| Usage::of(kind, cost));
        let is_sign = |entry: &Entry| signs.is_some_and(|signs| is_sign(signs, entry));
        ended.note(bare(descriptor, is_sign), usage);
    }
    Some(ended)
}

/// The parts of `request`; `None` if it is decided as any other.
pub(in crate::limiter) fn plan<'m>(
    request: &Request<'m>,
    signs: &Signs,
    holds: &Holds,
) -> Option<Plan<'m>> {
    let is_sign = |entry: &Entry| is_sign(signs, entry);
    let has_signs = |descriptor: &Descriptor| descriptor.entries.iter().any(is_sign);
    let alike = || {
        let each = request.descriptors.iter().enumerate();
        each.clone().any(|(i, one)| {
            request.descriptors.iter().skip(i + 1).any(|other| one.entries == other.entries)
        })
    };
    if !request.descriptors.iter().any(has_signs) && !alike() {
        return None;
    }
    let asking = Request { domain: request.domain, descriptors: SmallVec::new() };
    let mut plan = Plan { asking, roles: Vec::new(), ended: Vec::new() };
    let mut parts = Vec::new();
    for descriptor in &request.descriptors {
        let bare = bare(descriptor, is_sign);
        let (kind, report) = (value(descriptor, &signs.kind), value(descriptor, &signs.report));
        let role = match value(descriptor, &signs.hold) {
            Some(text) => plan.end(text, (kind, report), bare, holds),
            None => Role::Asks(plan.ask(bare, kind, &mut parts)),
        };
        plan.roles.push(role);
    }
    for (descriptor, parts) in plan.asking.descriptors.iter_mut().zip(parts) {
        join(descriptor, &parts);
    }
    Some(plan)
}

/// A part of what a descriptor asks for: its kind, and the hits if they are stated.
type Part<'m> = (Option<&'m [u8]>, Option<u64>);

/// Lets `descriptor` ask for all `parts`. While one kind is left open, its hits are the least.
fn join<'m>(descriptor: &mut Descriptor<'m>, parts: &[Part<'m>]) {
    if parts.iter().all(|(_, hits)| hits.is_none()) {
        return;
    }
    let stated = parts.iter().filter_map(|(kind, hits)| Some((kind, (*hits)?)));
    let total = stated.clone().map(|(_, hits)| hits).fold(0, u64::saturating_add);
    descriptor.own_hits = !parts.iter().any(|(kind, hits)| kind.is_some() && hits.is_none());
    if !matches!(descriptor.hits, Hits::Refund(_)) {
        descriptor.hits =
            if total == 0 { Hits::Peek(1) } else { Hits::Take(total.min(SATURATION)) };
    }
    if parts.iter().any(|(kind, _)| kind.is_some()) {
        let usage = stated.map(|(kind, hits)| Usage::of(*kind, hits)).reduce(Usage::with);
        descriptor.usage = usage.map(Box::new);
    }
}

/// The value of the entry `sign`.
fn value<'m>(descriptor: &Descriptor<'m>, sign: &str) -> Option<&'m [u8]> {
    let entry = descriptor.entries.iter().find(|entry| sign.as_bytes() == entry.key);
    entry.map(|entry| entry.value)
}

fn is_sign(signs: &Signs, entry: &Entry<'_>) -> bool {
    [&signs.hold, &signs.kind, &signs.report].iter().any(|sign| sign.as_bytes() == entry.key)
}

/// `descriptor` without its signs.
fn bare<'m>(descriptor: &Descriptor<'m>, is_sign: impl Fn(&Entry<'_>) -> bool) -> Descriptor<'m> {
    let entries = descriptor.entries.iter().filter(|entry| !is_sign(entry)).copied().collect();
    let Descriptor { hits, own_hits, limit, .. } = *descriptor;
    Descriptor { entries, hits, own_hits, usage: None, limit }
}

impl<'m> Plan<'m> {
    /// The position of the descriptor that asks as `bare` does, whose parts get another one.
    fn ask(
        &mut self,
        bare: Descriptor<'m>,
        kind: Option<&'m [u8]>,
        parts: &mut Vec<Vec<Part<'m>>>,
    ) -> usize {
        let hits = match bare.hits {
            Hits::Refund(hits) => hits,
            hits => stated(hits),
        };
        let part = (kind, bare.own_hits.then_some(hits));
        let refunds = |one: &Descriptor<'_>| matches!(one.hits, Hits::Refund(_));
        let alike = |known: &Descriptor<'m>| {
            let asks = !refunds(known) && !refunds(&bare);
            asks && known.entries == bare.entries && known.limit == bare.limit
        };
        let asking = &mut self.asking.descriptors;
        let Some(at) = asking.iter().position(alike) else {
            asking.push(bare);
            parts.push(vec![part]);
            return asking.len() - 1;
        };
        let Some(parts) = parts.get_mut(at) else { return at };
        match parts.iter_mut().find(|(kind, _)| *kind == part.0) {
            // A stated cost goes before one that is left open, and the larger of two.
            Some((_, known)) => *known = (*known).max(part.1),
            None => parts.push(part),
        }
        at
    }

    fn end(
        &mut self,
        text: &'m [u8],
        (kind, report): (Option<&'m [u8]>, Option<&[u8]>),
        bare: Descriptor<'m>,
        holds: &Holds,
    ) -> Role {
        if !self.ended.iter().any(|ended| ended.text == text) {
            let Some((handle, key)) = holds.read(self.asking.domain, text) else {
                return Role::Invalid;
            };
            let (descriptors, fared) = (Vec::new(), Fared::default());
            self.ended.push(Ended { handle, key, text, descriptors, fared });
        }
        let known = self.ended.iter_mut().find(|ended| ended.text == text);
        let Some(ended) = known else { return Role::Invalid };
        let stated = bare.own_hits.then(|| stated(bare.hits));
        match report {
            Some(b"attempts") => ended.fared.attempts = stated,
            Some(b"code") => ended.fared.code = stated,
            Some(b"ms") => ended.fared.millis = stated,
            Some(b"sent") => ended.fared.sent = stated,
            // Of other reports nothing depends.
            Some(_) => {}
            None => ended.note(bare, stated.map(|cost| Usage::of(kind, cost))),
        }
        Role::Ends
    }
}

impl<'m> Ended<'m> {
    fn note(&mut self, bare: Descriptor<'m>, usage: Option<Usage<'m>>) {
        let known = self.descriptors.iter_mut().find(|(known, _)| known.entries == bare.entries);
        match known {
            Some((_, known)) => {
                *known = match (known.take(), usage) {
                    (Some(one), Some(other)) => Some(one.with(other)),
                    (one, other) => one.or(other),
                }
            }
            None => self.descriptors.push((bare, usage)),
        }
    }
}

/// The number that a descriptor states; a peek states none used.
const fn stated(hits: Hits) -> u64 {
    match hits {
        Hits::Take(hits) | Hits::Book(hits) => hits,
        Hits::Peek(_) | Hits::Refund(_) | Hits::Hold(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::limiter::holds::HoldSettings;
    use crate::telemetry::metrics::Metrics;

    fn holds() -> Holds {
        let metrics = Metrics::new(0);
        Holds::new(&HoldSettings::default(), std::sync::Arc::clone(&metrics.holds))
    }

    /// A descriptor of `user`, with a kind, and with hits of its own.
    fn descriptor(user: u8, kind: Option<&'static str>, hits: Option<u64>) -> Descriptor<'static> {
        const USERS: &[u8] = b"0123456789";
        let user = [Entry { key: b"user", value: &USERS[usize::from(user)..][..1] }];
        let kind = kind.map(|kind| Entry { key: b"kind", value: kind.as_bytes() });
        let amount = match hits {
            Some(0) => Hits::Peek(1),
            hits => Hits::Take(hits.unwrap_or(1)),
        };
        let entries = user.into_iter().chain(kind).collect();
        Descriptor { entries, hits: amount, own_hits: hits.is_some(), usage: None, limit: None }
    }

    /// The hits, whether they are the request's own, and the hits by kind, in order.
    type Told = (Hits, bool, Vec<(Option<Vec<u8>>, u64)>);

    fn asked(descriptors: Vec<Descriptor<'_>>) -> Vec<(Vec<Entry<'_>>, Told)> {
        let request = Request { domain: b"llm", descriptors: descriptors.into() };
        let plan = plan(&request, &Signs::default(), &holds());
        let asking = plan.map_or(request.descriptors, |plan| plan.asking.descriptors);
        let told = asking.into_iter().map(|one| {
            let usage = one.usage.unwrap_or_default();
            let mut kinds: Vec<_> =
                usage.kinds().map(|(kind, hits)| (kind.map(<[u8]>::to_vec), hits)).collect();
            kinds.sort();
            (one.entries.into_vec(), (one.hits, one.own_hits, kinds))
        });
        told.collect()
    }

    fn one(descriptors: Vec<Descriptor<'_>>) -> Told {
        let mut all = asked(descriptors);
        assert_eq!(all.len(), 1);
        all.remove(0).1
    }

    #[test]
    fn alike_descriptors_ask_once() {
        let (of_input, of_output) = (Some("input"), Some("output"));
        let by_kind = |input, output| {
            [("input", input), ("output", output)]
                .into_iter()
                .filter_map(|(kind, hits): (&str, Option<u64>)| {
                    Some((Some(kind.as_bytes().to_vec()), hits?))
                })
                .collect::<Vec<_>>()
        };
        let told = one(vec![descriptor(1, None, Some(7)), descriptor(1, None, None)]);
        assert_eq!(told, (Hits::Take(7), true, vec![]));
        let told = one(vec![descriptor(1, None, None), descriptor(1, None, None)]);
        assert_eq!(told, (Hits::Take(1), false, vec![]));
        let told = one(vec![
            descriptor(1, None, None),
            descriptor(1, of_input, Some(50)),
            descriptor(1, of_output, Some(20)),
        ]);
        assert_eq!(told, (Hits::Take(70), true, by_kind(Some(50), Some(20))));
        let told = one(vec![descriptor(1, of_input, Some(50)), descriptor(1, of_output, None)]);
        assert_eq!(told, (Hits::Take(50), false, by_kind(Some(50), None)), "one is left open");
        let told = one(vec![descriptor(1, of_input, Some(0)), descriptor(1, of_output, Some(0))]);
        assert_eq!(told, (Hits::Peek(1), true, by_kind(Some(0), Some(0))));
    }

    #[test]
    fn refund_is_no_part_of_what_is_asked() {
        let refund = Descriptor { hits: Hits::Refund(3), ..descriptor(1, None, Some(3)) };
        let all = asked(vec![descriptor(1, None, Some(7)), refund.clone(), refund]);
        let hits: Vec<_> = all.iter().map(|(_, (hits, ..))| *hits).collect();
        assert_eq!(hits, [Hits::Take(7), Hits::Refund(3), Hits::Refund(3)]);
    }

    proptest! {
        /// Neither the order of descriptors matters, nor one that comes twice.
        #[test]
        fn parts_add_up_in_any_order(
            parts in proptest::collection::vec(
                (0_u8..3, prop_oneof![Just(None), Just(Some("a")), Just(Some("b"))],
                 proptest::option::of(0_u64..100)),
                1..9,
            ),
            turn in 0_usize..9,
        ) {
            let all: Vec<_> = parts.iter().map(|&(user, kind, hits)| descriptor(user, kind, hits)).collect();
            let sorted = |descriptors: Vec<Descriptor<'static>>| {
                let mut all: Vec<_> = asked(descriptors)
                    .into_iter()
                    .map(|(entries, told)| (entries[0].value, told))
                    .collect();
                all.sort_by_key(|(user, _)| *user);
                all
            };
            let mut other = all.clone();
            other.rotate_left(turn % all.len());
            other.push(other[0].clone());
            // A lone descriptor is left as it is unless it has a sign.
            prop_assume!(all.len() > 1);
            let (told, expected) = (sorted(other), sorted(all));
            let total = |told: &Told| (told.0.amount(), told.2.clone());
            let totals = |all: &[(&[u8], Told)]| {
                all.iter().map(|(user, told)| (user.to_vec(), total(told))).collect::<Vec<_>>()
            };
            prop_assert_eq!(totals(&told), totals(&expected));
        }
    }
}
