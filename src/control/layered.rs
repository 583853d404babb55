//! Policies of files and policies applied at run time, in force together.
//!
//! A domain in the files wins: an applied policy of that domain is kept and waits. One that does not compile, as another
//! version may have accepted it, is left out and never keeps the others from being in force. Nothing here knows where
//! applied policies are kept.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::policy::{Compiled, Fault, Faults, Files, Options, PolicySet, Source, Warning, compile};

/// A policy that was applied at run time.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Applied {
    /// Its text.
    pub yaml: Arc<str>,
    /// The revision of the change that applied it.
    pub revision: u64,
    /// When, in microseconds since 1970.
    pub updated_at: u64,
}

/// An applied policy, and whether it can be used.
#[derive(Clone, Debug)]
pub struct Standing {
    /// The policy.
    pub applied: Applied,
    /// Its warnings, or why it is left out.
    pub outcome: Result<Vec<Warning>, Faults>,
}

/// A policy text without faults.
#[derive(Debug)]
pub struct Checked {
    /// Whose policy it is.
    pub domain: Arc<str>,
    /// Whether it marks values as sensitive.
    pub sensitive: bool,
    /// What is odd about it.
    pub warnings: Vec<Warning>,
}

/// Checks the text of one policy by itself; `name` is what faults call it.
///
/// # Errors
/// Every fault.
pub fn check_text(name: &str, yaml: &str, options: &Options) -> Result<Checked, Faults> {
    let Compiled { set, warnings } = compile(&[Source::new(name, yaml)], options)?;
    let domain = set.domains().first().map(|domain| Arc::clone(domain.name()));
    let sensitive = set.marks_sensitive();
    Ok(Checked { domain: domain.unwrap_or_default(), sensitive, warnings })
}

/// What is in force, by where it comes from.
#[derive(Debug)]
pub struct Layered {
    options: Options,
    files: Files,
    file_domains: BTreeSet<Arc<str>>,
    applied: BTreeMap<Arc<str>, Standing>,
}

impl Layered {
    /// The policies of `files` alone.
    ///
    /// # Errors
    /// Every fault of the files.
    pub fn new(files: Files, options: Options) -> Result<(Self, Compiled), Faults> {
        let compiled = files.compile(&options)?;
        let file_domains = domains(&compiled.set);
        Ok((Self { options, files, file_domains, applied: BTreeMap::new() }, compiled))
    }

    /// Puts other files in the place of the present ones, which stay when these have faults. The set has the applied
    /// policies in it; the warnings are those of the files.
    ///
    /// # Errors
    /// Every fault of the files.
    pub fn replace_files(&mut self, files: Files) -> Result<Compiled, Faults> {
        let compiled = files.compile(&self.options)?;
        self.file_domains = domains(&compiled.set);
        self.files = files;
        Ok(Compiled { set: self.set(), warnings: compiled.warnings })
    }

    /// Takes over changes of applied policies, in this order; none: deleted. Whether anything changed.
    pub fn apply(&mut self, changes: Vec<(Arc<str>, Option<Applied>)>) -> bool {
        let mut changed = false;
        for (domain, applied) in changes {
            if self.applied.get(&domain).map(|standing| &standing.applied) == applied.as_ref() {
                continue;
            }
            changed |= match applied {
                None => self.applied.remove(&domain).is_some(),
                Some(applied) => {
                    let outcome = self.check(&domain, &applied.yaml);
                    self.applied.insert(domain, Standing { applied, outcome });
                    true
                }
            };
        }
        changed
    }

    fn check(&self, domain: &Arc<str>, yaml: &str) -> Result<Vec<Warning>, Faults> {
        let name = source_name(domain);
        let checked = check_text(&name, yaml, &self.options)?;
        if checked.domain == *domain {
            return Ok(checked.warnings);
        }
        let message = format!("is the policy of domain {:?}", checked.domain);
        Err(Faults::new(vec![Fault::of_file(name.into(), message)], checked.warnings))
    }

    /// Everything that is in force.
    pub fn set(&self) -> PolicySet {
        let mut sources = self.files.sources().to_vec();
        for (domain, standing) in &self.applied {
            if standing.outcome.is_ok() && !self.is_shadowed(domain) {
                sources.push(Source::new(source_name(domain), standing.applied.yaml.as_bytes()));
            }
        }
        match compile(&sources, &self.options) {
            Ok(compiled) => compiled.set,
            // Each compiles by itself and no two are of one domain; should they clash all the same, the files stay.
            Err(faults) => {
                tracing::error!("policies applied at run time are left out:\n{faults}");
                self.files.compile(&self.options).map(|compiled| compiled.set).unwrap_or_default()
            }
        }
    }

    /// Whether the files have a policy of `domain`.
    pub fn is_shadowed(&self, domain: &str) -> bool {
        self.file_domains.contains(domain)
    }

    /// The domains that files define, in order.
    pub const fn file_domains(&self) -> &BTreeSet<Arc<str>> {
        &self.file_domains
    }

    /// Every applied policy, by domain.
    pub const fn applied(&self) -> &BTreeMap<Arc<str>, Standing> {
        &self.applied
    }

    /// What policies leave open.
    pub const fn options(&self) -> &Options {
        &self.options
    }
}

/// What faults call an applied policy.
fn source_name(domain: &str) -> String {
    format!("rpc:{domain}")
}

fn domains(set: &PolicySet) -> BTreeSet<Arc<str>> {
    set.domains().into_iter().map(|domain| Arc::clone(domain.name())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn yaml(domain: &str, requests: u32) -> String {
        let limit = format!("{{unit: minute, requests_per_unit: {requests}}}");
        format!("domain: {domain}\ndescriptors: [{{key: a, rate_limit: {limit}}}]\n")
    }

    fn layered() -> Layered {
        let files = Files::of(vec![Source::new("a.yaml", yaml("edge", 1))]);
        Layered::new(files, Options::default()).unwrap().0
    }

    fn change(domain: &str, revision: u64, yaml: &str) -> (Arc<str>, Option<Applied>) {
        let applied = Applied { yaml: yaml.into(), revision, updated_at: 0 };
        (domain.into(), Some(applied))
    }

    fn places(layered: &Layered) -> Vec<String> {
        layered.set().rules().iter().map(|rule| rule.place.to_string()).collect()
    }

    #[test]
    fn applied_policy_joins_files_and_a_file_of_its_domain_wins() {
        let mut layered = layered();
        let changes =
            vec![change("orders", 1, &yaml("orders", 2)), change("edge", 2, &yaml("edge", 3))];
        assert!(layered.apply(changes));
        assert_eq!(places(&layered), ["a.yaml:2:15", "rpc:orders:2:15"]);
        assert!(layered.is_shadowed("edge") && !layered.is_shadowed("orders"));

        let files = Files::of(vec![Source::new("b.yaml", yaml("orders", 4))]);
        layered.replace_files(files).unwrap();
        assert_eq!(places(&layered), ["b.yaml:2:15", "rpc:edge:2:15"]);
    }

    #[test]
    fn faulty_policy_is_left_out_and_harms_nobody() {
        let mut layered = layered();
        let changes = vec![
            change("bad", 1, "domain: bad\nrules: []\n"),
            change("other", 2, &yaml("another", 1)),
            change("good", 3, &yaml("good", 1)),
        ];
        assert!(layered.apply(changes));
        assert_eq!(places(&layered), ["a.yaml:2:15", "rpc:good:2:15"]);
        let faults = |domain: &str| layered.applied()[domain].outcome.as_ref().unwrap_err();
        assert!(faults("bad").to_string().contains("rpc:bad:2:1: unknown key \"rules\""));
        assert_eq!(faults("other").to_string(), "rpc:other: is the policy of domain \"another\"");
    }

    #[test]
    fn change_told_again_is_none_and_of_two_the_later_call_counts() {
        let mut layered = layered();
        assert!(layered.apply(vec![change("orders", 5, &yaml("orders", 2))]));
        assert!(!layered.apply(vec![change("orders", 5, &yaml("orders", 2))]));
        assert!(layered.apply(vec![change("orders", 4, &yaml("orders", 3))]));
        assert_eq!(layered.applied()["orders"].applied.revision, 4);
        assert!(layered.apply(vec![("orders".into(), None)]));
        assert!(!layered.apply(vec![("orders".into(), None)]));
        assert!(layered.applied().is_empty());
    }

    #[test]
    fn files_with_faults_leave_everything_as_it_is() {
        let mut layered = layered();
        layered.apply(vec![change("orders", 1, &yaml("orders", 2))]);
        let bad = Files::of(vec![Source::new("b.yaml", "domain: [")]);
        assert!(layered.replace_files(bad).is_err());
        assert_eq!(places(&layered), ["a.yaml:2:15", "rpc:orders:2:15"]);
    }
}
