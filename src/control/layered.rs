//! Policies of several feeds, put together: which of them are in force, and why the others are not.
//!
//! Of two feeds with a policy of the same domain the one of higher precedence is in force; the
//! other one is shadowed and waits. Nothing here publishes or keeps time.
//!
//! * `origin`: the feeds and their precedence; `outcome`: the outcomes of changes.

mod origin;
mod outcome;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use self::origin::Origin;
pub use self::outcome::{Difference, Refusal, Replaced, Standing};
use crate::domain::Timestamp;
use crate::policy::{Compiled, Fault, Faults, Files, Options, PolicySet, Source, Warning, compile};

/// The point from which on a feed has had a policy as it is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Since {
    /// The revision of the registry, or the version of the policy set that first had it.
    pub version: u64,
    /// The time.
    pub at: Timestamp,
}

/// The policy of one domain, as one feed has it.
#[derive(Clone, Debug)]
pub struct Offer {
    /// Its texts, usually one, each with its rank among all texts of its feed.
    texts: Vec<(usize, Source)>,
    /// The time at which it came.
    pub since: Since,
    /// Its warnings, or the reason why it is left out.
    pub outcome: Result<Vec<Warning>, Faults>,
}

impl Offer {
    /// Its text; of several the first one.
    pub fn text(&self) -> String {
        let first = self.texts.first().map(|(_, source)| String::from_utf8_lossy(&source.text));
        first.map(String::from).unwrap_or_default()
    }

    fn has_texts_of(&self, other: &Self) -> bool {
        self.texts.len() == other.texts.len()
            && self.texts.iter().zip(&other.texts).all(|((_, a), (_, b))| a.text == b.text)
    }
}

/// The text of a domain's policy, of a feed that changes one domain at a time.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NewText {
    /// The text.
    pub yaml: Arc<str>,
    /// The time at which it came.
    pub since: Since,
}

/// Changes of single domains, in this order; none: the policy is deleted.
pub type DomainChanges = Vec<(Arc<str>, Option<NewText>)>;

/// A policy text without faults.
#[derive(Debug)]
pub struct Checked {
    /// The domain of the policy.
    pub domain: Arc<str>,
    /// The policy marks values as sensitive.
    pub sensitive: bool,
    /// Warnings about input that works but is probably not meant.
    pub warnings: Vec<Warning>,
}

/// Checks the text of one policy by itself; `name` is its name in faults.
///
/// # Errors
/// Every fault.
pub fn check_text(name: &str, yaml: &str, options: &Options) -> Result<Checked, Faults> {
    let Compiled { set, warnings, .. } = compile(&[Source::new(name, yaml)], options)?;
    let domain = set.domains().first().map(|domain| Arc::clone(domain.name()));
    let sensitive = set.marks_sensitive();
    Ok(Checked { domain: domain.unwrap_or_default(), sensitive, warnings })
}

/// The policies of every feed. A clone shares them.
#[derive(Clone, Debug)]
pub struct Layered {
    options: Options,
    /// By precedence; a feed without policies may be absent.
    layers: BTreeMap<Origin, Layer>,
    /// A feed without which it is unknown which policies there are.
    awaited: Option<Origin>,
}

/// The policies of one feed.
type Layer = BTreeMap<Arc<str>, Arc<Offer>>;

impl Layered {
    /// No policies.
    pub const fn new(options: Options) -> Self {
        Self { options, layers: BTreeMap::new(), awaited: None }
    }

    /// The same, incomplete until the first policies of `origin` are in force. Until then those of
    /// lower precedence are not, because `origin` may have others for their domains.
    #[must_use]
    pub fn awaiting(self, origin: Origin) -> Self {
        Self { awaited: Some(origin), ..self }
    }

    /// The feed that it waits for.
    pub fn awaits(&self) -> Option<Origin> {
        self.awaited.filter(|origin| !self.layers.contains_key(origin))
    }

    /// Puts `files` in the place of everything that `origin` had. On an error everything stays.
    ///
    /// # Errors
    /// Every fault of the files; or there are no policies in them, unless that is allowed or there
    /// were none before.
    pub fn replace(
        &mut self,
        origin: Origin,
        files: &Files,
        since: Since,
    ) -> Result<Replaced, Refusal> {
        let Compiled { set, warnings, domains } = files.compile(&self.options)?;
        let before = self.layers.get(&origin);
        let lost = before.map_or(0, BTreeMap::len);
        let may_be_empty = self.options.allow_empty || origin.may_become_empty();
        if domains.is_empty() && lost > 0 && !may_be_empty {
            return Err(Refusal::Empty(lost));
        }
        let layer = layer_of(files.sources(), domains, since, before);
        let difference = difference(before, &layer);
        let alone = self.layers.keys().all(|other| *other == origin);
        self.layers.insert(origin, layer);
        let set = if alone { set } else { self.set() };
        Ok(Replaced { set, warnings, difference })
    }

    /// Takes over changes of single domains of `origin`. A policy with faults is left out and does
    /// not keep others from being in force. Returns the domains that changed.
    pub fn change(&mut self, origin: Origin, changes: DomainChanges) -> Vec<Arc<str>> {
        let mut layer = self.layers.remove(&origin).unwrap_or_default();
        let mut changed = Vec::new();
        for (domain, text) in changes {
            let there = layer.get(&domain);
            let Some(NewText { yaml, since }) = text else {
                if layer.remove(&domain).is_some() {
                    changed.push(domain);
                }
                continue;
            };
            if there.is_some_and(|there| there.since == since && there.text() == *yaml) {
                continue;
            }
            let source = Source::new(source_name(&domain), yaml.as_bytes());
            let outcome = self.check(&domain, &source.name, &yaml);
            let offer = Offer { texts: vec![(0, source)], since, outcome };
            layer.insert(Arc::clone(&domain), Arc::new(offer));
            changed.push(domain);
        }
        if !layer.is_empty() {
            self.layers.insert(origin, layer);
        }
        changed
    }

    fn check(&self, domain: &Arc<str>, name: &str, yaml: &str) -> Result<Vec<Warning>, Faults> {
        let checked = check_text(name, yaml, &self.options)?;
        if checked.domain == *domain {
            return Ok(checked.warnings);
        }
        let message = format!("is the policy of domain {:?}", checked.domain);
        Err(Faults::new(vec![Fault::of_file(name.into(), message)], checked.warnings))
    }

    /// Everything that is in force.
    pub fn set(&self) -> PolicySet {
        let known = |origin: &Origin| self.awaits().is_none_or(|awaited| *origin < awaited);
        let mut layers: Vec<Origin> = self.layers.keys().copied().filter(known).collect();
        loop {
            match compile(&self.sources(&layers), &self.options) {
                Ok(compiled) => return compiled.set,
                // Each compiles by itself and no two are of one domain. Should they clash
                // nevertheless, feeds of higher precedence stay in force.
                Err(faults) => {
                    let Some(origin) = layers.pop() else { return PolicySet::default() };
                    let feed = origin.name();
                    tracing::error!(feed, "the policies of a feed are left out:\n{faults}");
                }
            }
        }
    }

    /// The texts in force, by feed and rank.
    fn sources(&self, origins: &[Origin]) -> Vec<Source> {
        let mut sources = Vec::new();
        for (origin, layer) in self.layers.iter().filter(|(origin, _)| origins.contains(origin)) {
            let in_force = layer.iter().filter(|(domain, offer)| {
                offer.outcome.is_ok() && self.shadowed_by(*origin, domain).is_none()
            });
            let mut ranked: Vec<_> = in_force.flat_map(|(_, offer)| &offer.texts).collect();
            ranked.sort_by_key(|(rank, _)| *rank);
            sources.extend(ranked.into_iter().map(|(_, source)| source.clone()));
        }
        sources
    }

    /// The feed of higher precedence than `origin` whose policy of `domain` is in force.
    pub fn shadowed_by(&self, origin: Origin, domain: &str) -> Option<Origin> {
        let mut above = self.layers.range(..origin);
        let has = |layer: &Layer| layer.get(domain).is_some_and(|offer| offer.outcome.is_ok());
        above.find(|(_, layer)| has(layer)).map(|(above, _)| *above)
    }

    /// Every policy of `domain`, by precedence: its feed, since when the feed has it, and whether
    /// it is in force.
    pub fn standings(&self, domain: &str) -> Vec<(Origin, Since, Standing)> {
        let offered = self.layers.iter().filter_map(|(o, layer)| Some((*o, layer.get(domain)?)));
        let standing = |(origin, offer): (Origin, &Arc<Offer>)| {
            let standing = match (&offer.outcome, self.shadowed_by(origin, domain)) {
                (Err(faults), _) => Standing::LeftOut(faults.clone()),
                (Ok(_), Some(above)) => Standing::ShadowedBy(above),
                (Ok(_), None) => Standing::InForce,
            };
            (origin, offer.since, standing)
        };
        offered.map(standing).collect()
    }

    /// The policies of one feed, by domain.
    pub fn offers(&self, origin: Origin) -> impl Iterator<Item = (&Arc<str>, &Arc<Offer>)> {
        self.layers.get(&origin).into_iter().flatten()
    }

    /// The options that policies leave open.
    pub const fn options(&self) -> &Options {
        &self.options
    }
}

/// The name of an applied policy in faults.
fn source_name(domain: &str) -> String {
    format!("rpc:{domain}")
}

/// The offers of a whole feed; `domains`: that of each source, same order. An offer that `before`
/// had keeps its time.
fn layer_of(
    sources: &[Source],
    domains: Vec<Arc<str>>,
    since: Since,
    before: Option<&Layer>,
) -> Layer {
    let mut offers: BTreeMap<Arc<str>, Offer> = BTreeMap::new();
    for (rank, (source, domain)) in sources.iter().zip(domains).enumerate() {
        let offer = Offer { texts: Vec::new(), since, outcome: Ok(Vec::new()) };
        offers.entry(domain).or_insert(offer).texts.push((rank, source.clone()));
    }
    let kept = |(domain, mut offer): (Arc<str>, Offer)| {
        if let Some(before) = before.and_then(|before| before.get(&domain))
            && before.has_texts_of(&offer)
        {
            offer.since = before.since;
        }
        (domain, Arc::new(offer))
    };
    offers.into_iter().map(kept).collect()
}

fn difference(before: Option<&Layer>, after: &Layer) -> Difference {
    let empty = Layer::new();
    let before = before.unwrap_or(&empty);
    let mut difference = Difference::default();
    for (domain, offer) in after {
        match before.get(domain) {
            None => difference.added.push(Arc::clone(domain)),
            Some(before) if !before.has_texts_of(offer) => {
                difference.changed.push(Arc::clone(domain));
            }
            Some(_) => {}
        }
    }
    let gone = before.keys().filter(|domain| !after.contains_key(*domain));
    difference.removed = gone.map(Arc::clone).collect();
    difference
}

#[cfg(test)]
mod tests;
