//! A request as the layers and the store see it: a group of claims, and one record beside each
//! claim.
//!
//! The group is what a store gets. All that is known of a claim besides, and what the layers say to
//! it, is in its record: [`Ask`] adds and removes both together, and joins them with a store's
//! answer in one place, [`Ask::join`].

mod holding;
pub(super) mod record;

use std::time::Duration;

use self::holding::Holding;
pub use self::holding::{Basis, Held, Reported, Unnamed};
pub use self::record::{Asked, Ruling, Source, Traits};
use super::lists::Lists;
use super::report::Report;
use crate::domain::{Claim, Group, HoldId, Part, Verdict};
use crate::policy::HoldTerms;
use crate::store::{Readings, StoreError};
use crate::telemetry::traces::StoreCall;

/// One request on its way through the layers.
#[derive(Clone, Debug, Default)]
pub struct Ask {
    pub(super) lists: Box<Lists>,
    /// True once a claim was left to the caller, which spares all other requests the search.
    unanswered: bool,
    /// None: no limit holds, and no rule adapts. Most requests are such, and this is moved often.
    holding: Option<Box<Holding>>,
    /// The call of the store is timed, for a span.
    pub(super) timed: bool,
    /// The call of the store, if it is timed and there was one.
    pub(super) call: Option<Box<StoreCall>>,
}

impl Ask {
    /// An empty request, with room.
    pub(super) fn with_room() -> Self {
        let lists = Lists::take();
        Self { lists, unanswered: false, holding: None, timed: false, call: None }
    }

    /// The claims that the store decides.
    pub fn group(&self) -> &Group {
        &self.lists.group
    }

    /// The number of claims.
    pub fn len(&self) -> usize {
        self.lists.records.len()
    }

    /// True if nothing is claimed.
    pub fn is_empty(&self) -> bool {
        self.lists.records.is_empty()
    }

    /// Adds a claim, of the part that is closed next.
    pub fn push(&mut self, claim: Claim, traits: Traits, report: Report) {
        self.lists.group.claims.push(claim);
        self.lists.records.push(Asked { traits, report, ruling: None });
    }

    fn holding_mut(&mut self) -> &mut Holding {
        self.holding.get_or_insert_default()
    }

    /// The id of the request's hold, a new one if it has none.
    pub fn hold_id(&mut self) -> HoldId {
        self.holding_mut().id
    }

    /// The position of the claim pushed last.
    fn last(&self) -> usize {
        self.lists.records.len().saturating_sub(1)
    }

    /// Notes that the claim pushed last is on a limit that holds.
    pub fn note_held(&mut self, terms: Option<HoldTerms>, limit: usize, basis: Basis) {
        let claim = self.last();
        self.holding_mut().held.push(Held { claim, terms, limit, basis });
    }

    /// Notes that the claim pushed last counts a hold without a handle, of the claim before.
    pub fn note_unnamed(&mut self) {
        let slot = self.last();
        self.holding_mut().unnamed.push(Unnamed { claim: slot.saturating_sub(1), slot });
    }

    /// Notes that the claim pushed last is of a report of this cost.
    pub fn note_reported(&mut self, terms: HoldTerms, cost: u64) {
        let claim = self.last();
        self.holding_mut().reported.push(Reported { claim, terms, cost });
    }

    /// Notes that a rule adapts to how the request fares.
    pub fn note_rule(&mut self, rule: u32) {
        let rules = &mut self.holding_mut().rules;
        if !rules.contains(&rule) {
            rules.push(rule);
        }
    }

    /// The numbers of the rules that adapt to how the request fares.
    pub fn rules(&self) -> &[u32] {
        self.holding.as_ref().map_or(&[], |holding| &holding.rules)
    }

    /// The claims on limits that hold, and are settled by a handle.
    pub fn held(&self) -> &[Held] {
        self.holding.as_ref().map_or(&[], |holding| &holding.held)
    }

    /// The holds without a handle.
    pub fn unnamed(&self) -> &[Unnamed] {
        self.holding.as_ref().map_or(&[], |holding| &holding.unnamed)
    }

    /// The reports of costs that end holds without a handle.
    pub fn reported(&self) -> &[Reported] {
        self.holding.as_ref().map_or(&[], |holding| &holding.reported)
    }

    /// The id of the request's hold, if it has one.
    pub fn hold(&self) -> Option<HoldId> {
        self.holding.as_ref().map(|holding| holding.id)
    }

    /// Takes back the claims from the `claims`-th on, of a part that is not closed.
    pub fn truncate(&mut self, claims: usize) {
        self.lists.group.claims.truncate(claims);
        self.lists.records.truncate(claims);
        if let Some(holding) = &mut self.holding {
            holding.truncate(claims);
        }
    }

    /// Makes a part of the claims from the `start`-th on.
    pub fn close_part(&mut self, start: usize, quota: bool, shadow: bool) -> Part {
        let part = Part { quota, shadow, claims: start..self.len() };
        self.lists.group.parts.push(part.clone());
        part
    }

    /// The records, in the order of the claims.
    pub fn records(&self) -> &[Asked] {
        &self.lists.records
    }

    /// Each claim with its record.
    pub fn claims(&self) -> impl Iterator<Item = (&Claim, &Asked)> {
        self.lists.group.claims.iter().zip(&self.lists.records)
    }

    /// The claims of `part`, which is one of this group, with their records.
    #[expect(clippy::indexing_slicing, reason = "a part names claims of its own group")]
    pub fn claims_of(&self, part: &Part) -> impl Iterator<Item = (&Claim, &Asked)> + Clone {
        let range = part.claims.clone();
        self.lists.group.claims[range.clone()].iter().zip(&self.lists.records[range])
    }

    /// The place of the claim of `part` that failed and has the longest wait; none: all passed.
    pub(super) fn worst_of(&self, part: &Part) -> Option<usize> {
        let places = part.claims.clone().zip(self.claims_of(part));
        let failed = places.filter(|(_, (_, asked))| !asked.passed());
        let worst = failed.max_by_key(|(_, (_, asked))| {
            let ruling = asked.ruling();
            (ruling.reading.retry_after.unwrap_or(Duration::MAX), ruling.counted())
        });
        worst.map(|(place, _)| place)
    }

    /// Each claim with its traits, to be changed on its way to the store.
    pub fn claims_mut(&mut self) -> impl Iterator<Item = (&mut Claim, &Traits)> {
        self.lists.group.claims.iter_mut().zip(self.lists.records.iter().map(|asked| &asked.traits))
    }

    /// Each claim with its traits, to be changed by tests.
    #[cfg(test)]
    pub(super) fn traits_mut(&mut self) -> impl Iterator<Item = (&Claim, &mut Traits)> {
        self.lists
            .group
            .claims
            .iter()
            .zip(self.lists.records.iter_mut().map(|asked| &mut asked.traits))
    }

    /// Writes the rulings of a layer that needs no store.
    ///
    /// # Panics
    /// When there is not one per claim: a shifted ruling would be that of another limit.
    pub fn rule(&mut self, rulings: Vec<Ruling>) {
        assert_eq!(rulings.len(), self.len(), "a layer rules on every claim or on none");
        for (asked, ruling) in self.lists.records.iter_mut().zip(rulings) {
            asked.ruling = Some(ruling);
        }
    }

    /// The `i`-th claim with its record.
    pub(super) fn claim(&self, i: usize) -> Option<(&Claim, &Asked)> {
        self.lists.group.claims.get(i).zip(self.lists.records.get(i))
    }

    /// True if the layers let the `i`-th claim pass.
    pub(super) fn passed(&self, i: usize) -> bool {
        self.lists.records.get(i).is_some_and(Asked::passed)
    }

    /// Writes the ruling on the `i`-th claim.
    pub(super) fn rule_one(&mut self, i: usize, ruling: Ruling) {
        if let Some(asked) = self.lists.records.get_mut(i) {
            asked.ruling = Some(ruling);
        }
    }

    /// Writes what `rule` says on the claims that nothing has ruled on; none: they stay open.
    /// Returns true if some do.
    pub(super) fn rule_open(&mut self, rule: impl Fn(&Claim, Traits) -> Option<Ruling>) -> bool {
        let mut open = false;
        for (claim, asked) in self.lists.group.claims.iter().zip(&mut self.lists.records) {
            if asked.ruling.is_none() {
                asked.ruling = rule(claim, asked.traits);
                open |= asked.ruling.is_none();
                let source = asked.ruling.as_ref().map(|ruling| ruling.source);
                self.unanswered |= source == Some(Source::Nothing);
            }
        }
        open
    }

    /// Writes what a store says, and where it says nothing what is [certain](Claim::certain). Other
    /// claims stay open. Returns why readings are missing.
    ///
    /// # Shape
    /// One reading per claim, same order. An answer of another length cannot be told apart from a
    /// shifted one, so no reading of it is believed. It may have been charged.
    pub fn join(&mut self, readings: Readings, failure: Option<StoreError>) -> Option<StoreError> {
        let (found, wanted) = (readings.len(), self.len());
        let misfit = (found != wanted)
            .then(|| StoreError::Protocol(format!("{found} readings for {wanted} claims")));
        let mut readings = if misfit.is_some() { Readings::new() } else { readings }.into_iter();
        for (claim, asked) in self.lists.group.claims.iter().zip(&mut self.lists.records) {
            let reading = readings.next().flatten().or_else(|| claim.certain());
            asked.ruling = reading.map(|reading| Ruling::of_store(claim, reading));
        }
        misfit.or(failure)
    }

    /// True if a limit that could deny the request has no answer, and leaves it to the caller.
    pub(super) fn is_unanswered(&self) -> bool {
        let open = |part: &Part| {
            self.claims_of(part).any(|(_, asked)| asked.ruling().source == Source::Nothing)
        };
        self.unanswered && self.lists.group.parts.iter().any(|part| !part.shadow && open(part))
    }

    /// The verdict on the whole request, by the rulings.
    #[expect(clippy::indexing_slicing, reason = "a part names claims of its own group")]
    pub fn verdict(&self) -> Verdict {
        self.lists.group.verdict(|claim| self.lists.records[claim].passed())
    }
}
