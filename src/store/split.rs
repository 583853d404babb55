//! The decision of a request whose parts are decided by several servers. Pure: it says what to ask,
//! is told the answers, and says what they come to.
//!
//! ```text
//! round 1, all slots at once
//!   parts with charges or refunds that no verdict undoes    charged
//!   no suspect, and not shy: all others                     charged
//!   else: the part of the suspect that fits last            charged (none, if only shy)
//!         all others                                        looked at
//! denied    every charge that depends on the verdict is given back
//! admitted, and something was only looked at
//!   round 2: what passed is charged; denied then: all is given back
//! ```
//!
//! * A request is admitted only if every part that it needs was charged, so no limit is exceeded.
//! * A part stays whole: its keys share a slot.
//! * Charging a request that will be denied takes hits from others until they are given back.
//!   Beside a limit that is used up, that refuses most of the others. So the part that will
//!   probably deny is charged and the others are looked at, and all are looked at first while many
//!   requests are given back ([`Shy`]).
//! * Parts without an answer count as passed here. The layer above decides them, last.

mod shy;

use tokio::time::Instant;

pub(crate) use self::shy::Shy;
use super::StoreError;
use crate::domain::{Amendment, Claim, Commit, Group, Part, Reading, Timestamp, Verdict};

/// Parts of a request that one server decides at once.
#[derive(Clone, Debug)]
pub(crate) struct Errand {
    /// The slot of their keys.
    pub(crate) slot: u16,
    pub(crate) commit: Commit,
    /// The parts as a group.
    pub(crate) group: Group,
    /// By claim of `group`: its position in the whole request.
    claims: Vec<usize>,
    /// By part of `group`: its position in the whole request.
    parts: Vec<usize>,
}

/// The knowledge about a part.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Standing {
    /// Nothing: it has no answer.
    Open,
    /// It was looked at, or has failed.
    Looked,
    /// It was charged.
    Charged,
}

/// The next step of a request.
#[derive(Debug)]
pub(crate) enum Next {
    /// These are to be asked.
    Ask(Vec<Errand>),
    /// The request is denied, whatever parts without an answer come to.
    Deny,
    /// The request is admitted, if the parts without an answer pass.
    Admit,
}

/// A request on its way.
#[derive(Debug)]
pub(crate) struct Split {
    group: Group,
    /// By part.
    slots: Vec<Option<u16>>,
    standings: Vec<Standing>,
    /// By claim.
    readings: Vec<Option<Reading>>,
    second: bool,
}

/// True if the claims of `group` are in several slots.
pub(crate) fn is_split(group: &Group) -> bool {
    let mut slots =
        group.claims.iter().filter(|claim| has_key(claim)).map(|claim| claim.key.slot());
    group.claims.len() > 1 && slots.next().is_some_and(|first| slots.any(|slot| slot != first))
}

/// The slot of a group that is not split; `None` if no claim has a key.
pub(crate) fn slot_of(group: &Group) -> Option<u16> {
    group.claims.iter().find(|claim| has_key(claim)).map(|claim| claim.key.slot())
}

/// A blocked limit has no counter.
const fn has_key(claim: &Claim) -> bool {
    !claim.limit.is_blocked()
}

impl Split {
    /// Begins a request.
    ///
    /// # Errors
    /// Fails if the keys of a part have several slots.
    pub(crate) fn new(group: Group) -> Result<Self, StoreError> {
        let slots = group.parts.iter().map(|part| slot(&group, part)).collect::<Result<_, _>>()?;
        let certain = |claim: &Claim| if has_key(claim) { None } else { claim.certain() };
        Ok(Self {
            slots,
            standings: vec![Standing::Open; group.parts.len()],
            readings: group.claims.iter().map(certain).collect(),
            group,
            second: false,
        })
    }

    /// The errands of the first round. `suspect` is the time at which a claim that has failed
    /// lately fits again. `shy`: nothing is charged before it was looked at.
    pub(crate) fn first(
        &self,
        suspect: impl Fn(&Claim) -> Option<Instant>,
        shy: bool,
    ) -> Vec<Errand> {
        let certain = |i: usize| self.group.claims.get(i).and_then(Claim::certain);
        let doomed = self.group.verdict(|i| certain(i).is_none_or(|r| r.passed)) == Verdict::Deny;
        let latest = |part: &Part| self.group.claims_of(part).iter().filter_map(&suspect).max();
        let enforced = self.group.parts.iter().enumerate().filter(|(_, part)| !part.shadow);
        let suspects = enforced.filter_map(|(i, part)| Some((latest(part)?, i)));
        let first = suspects.max().map(|(_, part)| part);
        self.errands(|i, part| {
            let unconditional = self.group.claims_of(part).iter().any(|c| !c.is_conditional());
            let charged = !doomed && (first == Some(i) || (first.is_none() && !shy));
            Some(if unconditional || charged { Commit::Each } else { Commit::Never })
        })
    }

    /// The parts decided one by one, all by the same rule.
    pub(crate) fn each(&self, commit: Commit) -> Vec<Errand> {
        self.errands(|_, _| Some(commit))
    }

    /// Notes the readings of an errand, one per claim of its group; none: there is no answer.
    pub(crate) fn note(&mut self, errand: &Errand, readings: Option<&[Reading]>) {
        let whole = readings.filter(|readings| readings.len() == errand.claims.len());
        for (i, claim) in errand.claims.iter().enumerate() {
            if let Some(known) = self.readings.get_mut(*claim) {
                *known = whole.and_then(|readings| readings.get(i).copied());
            }
        }
        let all = |part: &Part| part.claims.clone().all(|i| passed(whole, i));
        for (part, position) in errand.group.parts.iter().zip(&errand.parts) {
            let standing = match whole {
                None => Standing::Open,
                Some(_) if errand.commit == Commit::Each && all(part) => Standing::Charged,
                Some(_) => Standing::Looked,
            };
            if let Some(known) = self.standings.get_mut(*position) {
                *known = standing;
            }
        }
    }

    /// The next step. `in_time`: there is time for another round; without it, parts that were
    /// only looked at count as parts without an answer.
    pub(crate) fn next(&mut self, in_time: bool) -> Next {
        if self.group.verdict(|i| self.may_pass(i)) == Verdict::Deny {
            return Next::Deny;
        }
        if std::mem::replace(&mut self.second, true) {
            return Next::Admit;
        }
        let looked = |i: usize| self.standings.get(i) == Some(&Standing::Looked);
        let errands = self.errands(|i, part| {
            let passed = part.claims.clone().all(|claim| self.may_pass(claim));
            (looked(i) && passed).then_some(Commit::Each)
        });
        if errands.is_empty() {
            return Next::Admit;
        }
        if in_time {
            return Next::Ask(errands);
        }
        for errand in &errands {
            self.note(errand, None);
        }
        Next::Admit
    }

    /// The readings, one per claim of the request, in the same order.
    pub(crate) fn into_readings(self) -> Vec<Option<Reading>> {
        self.readings
    }

    /// Amendments that give back all that an errand has charged depending on the verdict. It was
    /// decided at `at`, with these readings.
    pub(crate) fn receipts(errand: &Errand, readings: &[Reading], at: Timestamp) -> Vec<Amendment> {
        let charged = errand.group.charged(errand.commit, |i| passed(Some(readings), i));
        let claims = errand.group.claims.iter().zip(charged).filter(|(_, charged)| *charged);
        let receipt = |(claim, _): (&Claim, bool)| give_back(claim, at);
        claims.filter_map(receipt).collect()
    }

    /// By claim of the whole request: true if it is one of those that `errand` has charged.
    pub(crate) fn spread(errand: &Errand, charged: &[bool], claims: usize) -> Vec<bool> {
        let mut spread = vec![false; claims];
        for (claim, charged) in errand.claims.iter().zip(charged) {
            if let Some(place) = spread.get_mut(*claim) {
                *place = *charged;
            }
        }
        spread
    }

    /// True if a claim passed, or has no answer.
    fn may_pass(&self, claim: usize) -> bool {
        self.readings.get(claim).copied().flatten().is_none_or(|reading| reading.passed)
    }

    /// The parts for which `commit` says something, joined by slot and commit, in order.
    fn errands(&self, commit: impl Fn(usize, &Part) -> Option<Commit>) -> Vec<Errand> {
        let mut errands: Vec<Errand> = Vec::new();
        for (i, part) in self.group.parts.iter().enumerate() {
            let Some(slot) = self.slots.get(i).copied().flatten() else { continue };
            let Some(commit) = commit(i, part) else { continue };
            let of_place = |errand: &&mut Errand| errand.slot == slot && errand.commit == commit;
            if let Some(errand) = errands.iter_mut().find(of_place) {
                errand.add(i, part, &self.group);
            } else {
                let mut errand = Errand::new(slot, commit);
                errand.add(i, part, &self.group);
                errands.push(errand);
            }
        }
        errands
    }
}

impl Errand {
    fn new(slot: u16, commit: Commit) -> Self {
        Self { slot, commit, group: Group::default(), claims: Vec::new(), parts: Vec::new() }
    }

    fn add(&mut self, position: usize, part: &Part, whole: &Group) {
        let start = self.group.claims.len();
        self.group.claims.extend_from_slice(whole.claims_of(part));
        self.group.parts.push(Part { claims: start..self.group.claims.len(), ..part.clone() });
        self.claims.extend(part.claims.clone());
        self.parts.push(position);
    }
}

/// The change that gives a charge back; none for what no verdict undoes.
pub(crate) fn give_back(claim: &Claim, charged_at: Timestamp) -> Option<Amendment> {
    if !claim.is_conditional() || !has_key(claim) {
        return None;
    }
    let change = claim.undo(charged_at)?;
    Some(Amendment { key: claim.key.clone(), limit: claim.limit, change })
}

fn passed(readings: Option<&[Reading]>, claim: usize) -> bool {
    readings.and_then(|readings| readings.get(claim)).is_some_and(|reading| reading.passed)
}

fn slot(group: &Group, part: &Part) -> Result<Option<u16>, StoreError> {
    let mut slots = group.claims_of(part).iter().filter(|c| has_key(c)).map(|c| c.key.slot());
    let first = slots.next();
    if slots.any(|slot| Some(slot) != first) {
        let reason = "the counters of a descriptor are in several slots";
        return Err(StoreError::Protocol(reason.to_owned()));
    }
    Ok(first)
}

#[cfg(test)]
mod tests;
