//! The parts of a request in a domain with holds: descriptors that ask for admission, and those
//! with the handle of a request that has ended.
//!
//! Entries that are signs are no part of a counter and are taken out. Of several descriptors that
//! are alike then, as a caller sends one with the number of hits and one without, one asks: with
//! the hits that are stated, if one states them.

use bytes::Bytes;

use super::Holds;
use super::handle::{Handle, HandleKey};
use crate::domain::Hits;
use crate::limiter::request::{Descriptor, Entry, Request};
use crate::limiter::signals::Fared;
use crate::policy::Signs;

/// The parts of a request.
#[derive(Debug)]
pub(in crate::limiter) struct Plan {
    /// The descriptors that ask, without signs; each once.
    pub(in crate::limiter) asking: Request,
    /// By descriptor of the whole request.
    pub(in crate::limiter) roles: Vec<Role>,
    /// The ends of requests.
    pub(in crate::limiter) ended: Vec<Ended>,
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
pub(in crate::limiter) struct Ended {
    pub(in crate::limiter) handle: Handle,
    pub(in crate::limiter) key: HandleKey,
    /// The text of the handle, by which its descriptors are found.
    text: Bytes,
    /// The descriptors without signs, and the cost that each states.
    pub(in crate::limiter) descriptors: Vec<(Descriptor, Option<u64>)>,
    /// The reports on how the request has fared.
    pub(in crate::limiter) fared: Fared,
}

/// The end that a caller names itself, by descriptors and the cost of each; `None` if the handle is
/// not good.
pub(super) fn ended(
    (domain, text): (&[u8], &Bytes),
    descriptors: &[(Descriptor, Option<u64>)],
    fared: Fared,
    (signs, holds): (Option<&Signs>, &Holds),
) -> Option<Ended> {
    let (handle, key) = holds.read(domain, text)?;
    let mut ended = Ended { handle, key, text: text.clone(), descriptors: Vec::new(), fared };
    for (descriptor, cost) in descriptors {
        ended.note(
            bare(descriptor, |entry| signs.is_some_and(|signs| is_sign(signs, entry))),
            *cost,
        );
    }
    Some(ended)
}

/// The parts of `request`; `None` if it is decided as any other.
pub(in crate::limiter) fn plan(request: &Request, signs: &Signs, holds: &Holds) -> Option<Plan> {
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
    let asking = Request { domain: request.domain.clone(), descriptors: Vec::new() };
    let mut plan = Plan { asking, roles: Vec::new(), ended: Vec::new() };
    for descriptor in &request.descriptors {
        let value = |sign: &str| {
            let entry = descriptor.entries.iter().find(|entry| sign.as_bytes() == entry.key);
            entry.map(|entry| &entry.value)
        };
        let bare = bare(descriptor, is_sign);
        let role = match value(&signs.hold) {
            Some(text) => plan.end(text, value(&signs.report), bare, holds),
            None => plan.ask(bare),
        };
        plan.roles.push(role);
    }
    Some(plan)
}

fn is_sign(signs: &Signs, entry: &Entry) -> bool {
    [&signs.hold, &signs.kind, &signs.report].iter().any(|sign| sign.as_bytes() == entry.key)
}

/// `descriptor` without its signs.
fn bare(descriptor: &Descriptor, is_sign: impl Fn(&Entry) -> bool) -> Descriptor {
    let entries = descriptor.entries.iter().filter(|entry| !is_sign(entry));
    Descriptor { entries: entries.cloned().collect(), ..*descriptor }
}

impl Plan {
    fn ask(&mut self, bare: Descriptor) -> Role {
        let asking = &mut self.asking.descriptors;
        let alike = |known: &Descriptor| known.entries == bare.entries && known.limit == bare.limit;
        let Some(at) = asking.iter().position(alike) else {
            asking.push(bare);
            return Role::Asks(asking.len() - 1);
        };
        // A stated cost goes before one that is left open.
        if let Some(known) = asking.get_mut(at).filter(|known| !known.own_hits && bare.own_hits) {
            *known = bare;
        }
        Role::Asks(at)
    }

    fn end(
        &mut self,
        text: &Bytes,
        report: Option<&Bytes>,
        bare: Descriptor,
        holds: &Holds,
    ) -> Role {
        if !self.ended.iter().any(|ended| ended.text == *text) {
            let Some((handle, key)) = holds.read(&self.asking.domain, text) else {
                return Role::Invalid;
            };
            let (text, descriptors) = (text.clone(), Vec::new());
            let fared = Fared::default();
            self.ended.push(Ended { handle, key, text, descriptors, fared });
        }
        let known = self.ended.iter_mut().find(|ended| ended.text == *text);
        let Some(ended) = known else { return Role::Invalid };
        let stated = bare.own_hits.then(|| stated(bare.hits));
        match report.map(|report| &**report) {
            Some(b"attempts") => ended.fared.attempts = stated,
            Some(b"code") => ended.fared.code = stated,
            Some(b"ms") => ended.fared.millis = stated,
            // Of other reports nothing depends.
            Some(_) => {}
            None => ended.note(bare, stated),
        }
        Role::Ends
    }
}

impl Ended {
    fn note(&mut self, bare: Descriptor, cost: Option<u64>) {
        let known = self.descriptors.iter_mut().find(|(known, _)| known.entries == bare.entries);
        match known {
            Some((_, known)) => {
                *known = match (*known, cost) {
                    (Some(one), Some(other)) => Some(one.saturating_add(other)),
                    (one, other) => one.or(other),
                }
            }
            None => self.descriptors.push((bare, cost)),
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
