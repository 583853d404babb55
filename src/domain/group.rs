//! The decision of a whole request: all its claims, decided together.
//!
//! Rules of the verdict:
//!
//! * A request is denied if an enforced descriptor fails.
//! * A request with quota descriptors is denied if all of them fail.
//! * A descriptor in shadow mode never denies, and counts as passing among quota descriptors.
//!
//! Rules of the charges:
//!
//! * A denied request charges nothing.
//! * An admitted request charges every limit of each descriptor that passes.
//! * Refunds, booked hits, and limits that always charge, apply in both cases.
//!
//! The memory store runs [`Group::decide`]. The Redis script computes the same function.

use std::ops::Range;

use super::Timestamp;
use super::amend::Change;
use super::counter::{Counter, blocked};
use super::key::Key;
use super::lease::LeaseAsk;
use super::limit::Limit;
use super::reading::{Hits, Reading};

/// One limit of one descriptor, and the hits that the request asks of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Claim {
    /// The counter.
    pub key: Key,
    /// The limit of the counter.
    pub limit: Limit,
    /// The hits asked for.
    pub hits: Hits,
    /// Tokens to lease in the same step. Boxed, because few claims ask for a lease.
    pub lease: Option<Box<LeaseAsk>>,
}

impl Claim {
    /// True if the charge depends on the verdict. Refunds, booked hits and limits that always
    /// charge do not depend on it.
    pub const fn is_conditional(&self) -> bool {
        !matches!(self.hits, Hits::Refund(_) | Hits::Book(_)) && !self.limit.always_charges()
    }

    /// The change that undoes a charge of this claim at `charged_at`. `None` if there is nothing to
    /// undo, or a verdict does not undo it.
    pub const fn undo(&self, charged_at: Timestamp) -> Option<Change> {
        match self.hits {
            Hits::Take(hits) => Some(Change::GiveBack { hits, charged_at }),
            Hits::Hold(id) => {
                let until = charged_at.plus_micros(self.limit.period_micros());
                Some(Change::Release { id, until })
            }
            Hits::Peek(_) | Hits::Book(_) | Hits::Refund(_) => None,
        }
    }

    /// Decides the claim as the only one of a group, against its counter.
    pub fn decide(&self, commit: Commit, now: Timestamp, counter: &mut Counter) -> Reading {
        let before = (commit == Commit::Never).then(|| counter.clone());
        if !self.limit.is_blocked() {
            counter.clamp_to_clock(&self.limit, now);
        }
        let reading = counter.step_clamped(&self.limit, self.hits, self.lease.as_deref(), now);
        if let Some(before) = before {
            *counter = before;
        }
        reading
    }

    /// The reading that does not depend on the counter, if there is one: for a limit of zero, which
    /// has no counter, and for a cost above the capacity, which never fits and charges nothing. In
    /// the second case only `passed` is meaningful; `remaining` is not.
    pub fn certain(&self) -> Option<Reading> {
        let too_large = self.hits.needed() > self.limit.capacity() && self.is_conditional();
        (too_large || self.limit.is_blocked()).then(|| blocked(self.hits))
    }
}

/// One descriptor. It passes if all its claims pass.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Part {
    /// Belongs to the quota descriptors, which deny only if all of them fail.
    pub quota: bool,
    /// Shadow mode: decided and charged, but never denies.
    pub shadow: bool,
    /// The range of its claims in [`Group::claims`].
    pub claims: Range<usize>,
}

/// The rule by which charges are committed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Commit {
    /// All or nothing, by the verdict.
    Together,
    /// Charges each part that passes, independent of the other parts.
    Each,
    /// Dry run: charges nothing.
    Never,
}

/// The answer to a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// The request may pass.
    Admit,
    /// The request may not pass.
    Deny,
}

/// All claims of one request. Parts and claims are in the order of the request's descriptors.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Group {
    /// The descriptors that have limits, in order.
    pub parts: Vec<Part>,
    /// The claims of all parts, in order and without gaps.
    pub claims: Vec<Claim>,
}

impl Group {
    /// The claims of `part`, which is one of this group.
    #[expect(clippy::indexing_slicing, reason = "a part names claims of its own group")]
    pub fn claims_of(&self, part: &Part) -> &[Claim] {
        &self.claims[part.claims.clone()]
    }

    /// The verdict. `passed(i)` is true if claim `i` passed.
    pub fn verdict(&self, passed: impl Fn(usize) -> bool) -> Verdict {
        verdict(self.parts.iter().map(|part| (part, part.claims.clone().all(&passed))))
    }

    /// By claim: true if a decision by `commit` has charged it. `passed(i)` is true if claim `i`
    /// passed.
    pub fn charged(&self, commit: Commit, passed: impl Fn(usize) -> bool) -> Vec<bool> {
        let stands = match commit {
            Commit::Together => self.verdict(&passed) == Verdict::Admit,
            Commit::Each => true,
            Commit::Never => return vec![false; self.claims.len()],
        };
        let mut charged = Vec::with_capacity(self.claims.len());
        for part in &self.parts {
            let stands = stands && part.claims.clone().all(&passed);
            let of_part =
                self.claims_of(part).iter().map(|claim| stands || !claim.is_conditional());
            charged.extend(of_part);
        }
        charged
    }

    /// Decides every claim in order against its counter. Each claim sees the charges of the claims
    /// before it. Leaves the charges in `counters` according to `commit`.
    ///
    /// # Shape
    /// `slots` has one index into `counters` per claim; equal keys share a slot. Returns one
    /// reading per claim, in the same order.
    ///
    /// # Panics
    /// When `slots` has another shape: a reading that is left out would shift all later ones to
    /// other claims.
    pub fn decide(
        &self,
        commit: Commit,
        now: Timestamp,
        slots: &[usize],
        counters: &mut [Counter],
    ) -> Vec<Reading> {
        assert_eq!(slots.len(), self.claims.len(), "one slot per claim");
        let may_go_back = commit == Commit::Never || self.parts.len() > 1;
        let before = vec![None; if may_go_back { counters.len() } else { 0 }];
        let readings = Vec::with_capacity(self.claims.len());
        let mut trial = Trial { group: self, commit, now, slots, counters, before, readings };
        self.parts.iter().for_each(|part| trial.decide_part(part));
        assert_eq!(trial.readings.len(), self.claims.len(), "parts name every claim once");
        #[expect(clippy::indexing_slicing, reason = "one reading per claim")]
        let passed = |claim: usize| trial.readings[claim].passed;
        let denied = commit == Commit::Together && self.verdict(passed) == Verdict::Deny;
        if commit == Commit::Never {
            trial.undo();
        } else if denied && self.parts.len() > 1 {
            trial.undo();
            trial.charge_unconditional();
        }
        trial.readings
    }
}

/// A group being decided on working copies of its counters.
struct Trial<'a> {
    group: &'a Group,
    commit: Commit,
    now: Timestamp,
    slots: &'a [usize],
    counters: &'a mut [Counter],
    /// The state to which each touched counter returns if the group charges nothing. Empty if the
    /// group cannot be undone.
    before: Vec<Option<Counter>>,
    readings: Vec<Reading>,
}

impl Trial<'_> {
    /// Charges the claims of one part, unless one of them fails.
    #[expect(clippy::indexing_slicing, reason = "slots are places in `counters`, one per claim")]
    fn decide_part(&mut self, part: &Part) {
        let several = part.claims.len() > 1;
        let mut passed = true;
        let mut undo = Vec::new();
        let slots = &self.slots[part.claims.clone()];
        for (claim, &slot) in self.group.claims_of(part).iter().zip(slots) {
            self.touch(claim, slot);
            let counter = &mut self.counters[slot];
            // A limit of zero changes no state, so there is nothing to undo.
            if several && claim.is_conditional() && !claim.limit.is_blocked() {
                undo.push((slot, counter.clone()));
            }
            let reading =
                counter.step_clamped(&claim.limit, claim.hits, claim.lease.as_deref(), self.now);
            passed &= reading.passed;
            self.readings.push(reading);
        }
        if !passed {
            for (slot, counter) in undo.into_iter().rev() {
                self.counters[slot] = counter;
            }
        }
    }

    /// Clamps the counter of a claim to the clock, and saves its state at the first touch. The
    /// clamped state survives a denial; only a dry run undoes it.
    fn touch(&mut self, claim: &Claim, slot: usize) {
        if claim.limit.is_blocked() {
            return;
        }
        let Some(counter) = self.counters.get_mut(slot) else { return };
        let mut keep = |counter: &Counter| {
            if let Some(before) = self.before.get_mut(slot) {
                before.get_or_insert_with(|| counter.clone());
            }
        };
        if self.commit == Commit::Never {
            keep(counter);
        }
        counter.clamp_to_clock(&claim.limit, self.now);
        keep(counter);
    }

    fn undo(&mut self) {
        for (counter, before) in self.counters.iter_mut().zip(&mut self.before) {
            if let Some(before) = before.take() {
                *counter = before;
            }
        }
    }

    fn charge_unconditional(&mut self) {
        for (claim, &slot) in self.group.claims.iter().zip(self.slots) {
            if !claim.is_conditional()
                && let Some(counter) = self.counters.get_mut(slot)
            {
                counter.step(&claim.limit, claim.hits, self.now);
            }
        }
    }
}

/// The verdict over pairs of a part and `passed`.
fn verdict<'a>(parts: impl Iterator<Item = (&'a Part, bool)>) -> Verdict {
    let (mut quotas, mut quotas_left) = (false, false);
    for (part, passed) in parts {
        let passed = passed || part.shadow;
        if part.quota {
            quotas = true;
            quotas_left |= passed;
        } else if !passed {
            return Verdict::Deny;
        }
    }
    if quotas && !quotas_left { Verdict::Deny } else { Verdict::Admit }
}
