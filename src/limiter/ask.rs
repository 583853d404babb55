//! A request as the layers and the store see it: a group of claims, and one record beside each
//! claim.
//!
//! The group is what a store gets. All that is known of a claim besides, and what the layers say to
//! it, is in its record: [`Ask`] adds and removes both together, and joins them with a store's
//! answer in one place, [`Ask::join`].

use super::report::Report;
use crate::domain::{Claim, Group, Part, Reading, Verdict};
use crate::policy::{LeaseTerms, OnStoreFailure};
use crate::store::{Answer, StoreError};

/// A reading, and whether it is the store's.
#[derive(Clone, Copy, Debug)]
pub struct Ruling {
    /// The decision on the claim.
    pub reading: Reading,
    /// Decided without the store.
    pub degraded: bool,
}

impl From<Reading> for Ruling {
    /// A reading that is the store's, or as good as the store's.
    fn from(reading: Reading) -> Self {
        Self { reading, degraded: false }
    }
}

/// One request on its way through the layers.
#[derive(Clone, Debug, Default)]
pub struct Ask {
    group: Group,
    /// One per claim of the group, same order.
    records: Vec<Asked>,
}

/// The record of a claim.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The terms of its rule.
    pub traits: Traits,
    /// The report of its limit.
    pub report: Report,
    ruling: Option<Ruling>,
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

    fn passed(&self) -> bool {
        self.ruling().reading.passed
    }
}

impl Ask {
    /// The claims that the store decides.
    pub const fn group(&self) -> &Group {
        &self.group
    }

    /// The number of claims.
    pub const fn len(&self) -> usize {
        self.records.len()
    }

    /// True if nothing is claimed.
    pub const fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Adds a claim, of the part that is closed next.
    pub fn push(&mut self, claim: Claim, traits: Traits, report: Report) {
        self.group.claims.push(claim);
        self.records.push(Asked { traits, report, ruling: None });
    }

    /// Takes back the claims from the `claims`-th on, of a part that is not closed.
    pub fn truncate(&mut self, claims: usize) {
        self.group.claims.truncate(claims);
        self.records.truncate(claims);
    }

    /// Makes a part of the claims from the `start`-th on.
    pub fn close_part(&mut self, start: usize, quota: bool, shadow: bool) -> Part {
        let part = Part { quota, shadow, claims: start..self.len() };
        self.group.parts.push(part.clone());
        part
    }

    /// The records, in the order of the claims.
    pub fn records(&self) -> &[Asked] {
        &self.records
    }

    /// Each claim with its record.
    pub fn claims(&self) -> impl Iterator<Item = (&Claim, &Asked)> {
        self.group.claims.iter().zip(&self.records)
    }

    /// The claims of `part`, which is one of this group, with their records.
    #[expect(clippy::indexing_slicing, reason = "a part names claims of its own group")]
    pub fn claims_of(&self, part: &Part) -> impl Iterator<Item = (&Claim, &Asked)> + Clone {
        let range = part.claims.clone();
        self.group.claims[range.clone()].iter().zip(&self.records[range])
    }

    /// Each claim with its traits, to be changed on its way to the store.
    pub fn claims_mut(&mut self) -> impl Iterator<Item = (&mut Claim, &Traits)> {
        self.group.claims.iter_mut().zip(self.records.iter().map(|asked| &asked.traits))
    }

    /// Writes the rulings of a layer that needs no store.
    ///
    /// # Panics
    /// When there is not one per claim: a shifted ruling would be that of another limit.
    pub fn rule(&mut self, rulings: Vec<Ruling>) {
        assert_eq!(rulings.len(), self.len(), "a layer rules on every claim or on none");
        for (asked, ruling) in self.records.iter_mut().zip(rulings) {
            asked.ruling = Some(ruling);
        }
    }

    /// Writes what a store says, and where it says nothing what is [certain](Claim::certain),
    /// otherwise what `without` says. Returns why readings are missing.
    ///
    /// # Shape
    /// One reading per claim, same order. An answer of another length cannot be told apart from a
    /// shifted one, so no reading of it is believed. It may have been charged.
    pub fn join(
        &mut self,
        Answer { readings, failure }: Answer,
        without: impl Fn(&Claim, Traits) -> Ruling,
    ) -> Option<StoreError> {
        let (found, wanted) = (readings.len(), self.len());
        let misfit = (found != wanted)
            .then(|| StoreError::Protocol(format!("{found} readings for {wanted} claims")));
        let mut readings = if misfit.is_some() { Vec::new() } else { readings }.into_iter();
        for (claim, asked) in self.group.claims.iter().zip(&mut self.records) {
            let reading = readings.next().flatten().or_else(|| claim.certain());
            let ruling = reading.map_or_else(|| without(claim, asked.traits), Ruling::from);
            asked.ruling = Some(ruling);
        }
        misfit.or(failure)
    }

    /// The verdict on the whole request, by the rulings.
    #[expect(clippy::indexing_slicing, reason = "a part names claims of its own group")]
    pub fn verdict(&self) -> Verdict {
        self.group.verdict(|claim| self.records[claim].passed())
    }
}
