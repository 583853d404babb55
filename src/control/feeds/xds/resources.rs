//! The resources of a response: policies by domain, or faults.
//!
//! All or nothing: the faults of all resources are collected, and with one of them no resource is
//! used. Control planes send resources in random order, so they are put in order first.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use prost_types::Any;

use super::pb::RateLimitConfig;
use super::tree::{Findings, Tree};
use crate::policy::{Files, Source};

/// The type of the resources, and of the subscription.
pub(super) const TYPE_URL: &str =
    "type.googleapis.com/ratelimit.config.ratelimit.v3.RateLimitConfig";

/// Policies by domain.
pub(super) type Sources = BTreeMap<Arc<str>, Source>;

/// The resources of a response.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) sources: Sources,
    /// Faults and warnings, each with the name of the resource.
    faults: Vec<(String, String)>,
    warnings: Vec<(String, String)>,
}

/// The resources of one domain.
struct Domain {
    /// The name of the first one.
    name: String,
    tree: Tree,
    /// All of them as they came.
    identity: Vec<u8>,
}

/// Reads `resources`. With `merge_domains` several may be of one domain.
pub(super) fn read(resources: Vec<Any>, merge_domains: bool) -> Contents {
    let mut contents = Contents::default();
    let mut configs = decode(resources, &mut contents.faults);
    configs.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
    let mut domains: BTreeMap<String, Domain> = BTreeMap::new();
    for (config, identity) in configs {
        let RateLimitConfig { name, domain, descriptors } = config;
        if domain.is_empty() {
            contents.faults.push((name, "config file cannot have empty domain".to_owned()));
            continue;
        }
        if !merge_domains && domains.contains_key(&domain) {
            contents.faults.push((name, format!("duplicate domain '{domain}' in config file")));
            continue;
        }
        let entry = domains.entry(domain).or_insert_with_key(|domain| Domain {
            name: name.clone(),
            tree: Tree::new(domain),
            identity: Vec::new(),
        });
        entry.identity.extend_from_slice(&(identity.len() as u64).to_be_bytes());
        entry.identity.extend_from_slice(&identity);
        let mut found = Findings::default();
        entry.tree.add(descriptors, &mut found);
        contents.faults.extend(found.faults.into_iter().map(|text| (name.clone(), text)));
        contents.warnings.extend(found.warnings.into_iter().map(|text| (name.clone(), text)));
    }
    for (domain, Domain { name, tree, identity }) in domains {
        let source = Source::drafted(name, tree.into_draft(), identity);
        contents.sources.insert(domain.into(), source);
    }
    contents
}

/// The messages, each with its encoding.
fn decode(
    resources: Vec<Any>,
    faults: &mut Vec<(String, String)>,
) -> Vec<(RateLimitConfig, Bytes)> {
    let mut configs = Vec::with_capacity(resources.len());
    for Any { type_url, value } in resources {
        let value = Bytes::from(value);
        if type_url != TYPE_URL {
            let message = format!("is of type {type_url:?}, expected {TYPE_URL:?}");
            faults.push(("a resource".to_owned(), message));
            continue;
        }
        match RateLimitConfig::decode(value.clone()) {
            Ok(config) => configs.push((config, value)),
            Err(error) => {
                faults.push(("a resource".to_owned(), format!("cannot be decoded: {error}")));
            }
        }
    }
    configs
}

impl Contents {
    /// Everything for the writer, with the policies of `held` domains beside those of the response.
    pub(super) fn files(&self, held: &Sources) -> Files {
        let mut files = Files::of(with(&self.sources, held).into_values().collect());
        for (name, message) in &self.faults {
            files.refuse(name, message.clone());
        }
        for (name, message) in &self.warnings {
            files.warn(name, message.clone());
        }
        files
    }
}

/// `sources`, and those of `held` whose domains they lack.
pub(super) fn with(sources: &Sources, held: &Sources) -> Sources {
    let mut all = held.clone();
    all.extend(sources.iter().map(|(domain, source)| (Arc::clone(domain), source.clone())));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::feeds::xds::pb::{RateLimitDescriptor, RateLimitPolicy};
    use crate::policy::{Options, PolicySet};

    fn any(name: &str, domain: &str, unit: i32, requests: u32) -> Any {
        let policy = RateLimitPolicy { unit, requests_per_unit: requests, ..Default::default() };
        let descriptor = RateLimitDescriptor {
            key: format!("key-{name}"),
            rate_limit: Some(policy),
            ..RateLimitDescriptor::default()
        };
        let config = RateLimitConfig {
            name: name.to_owned(),
            domain: domain.to_owned(),
            descriptors: vec![descriptor.encode_to_vec().into()],
        };
        Any { type_url: TYPE_URL.to_owned(), value: config.encode_to_vec() }
    }

    fn compile(resources: Vec<Any>, merge_domains: bool) -> Result<PolicySet, String> {
        let files = read(resources, merge_domains).files(&Sources::new());
        let compiled = files.compile(&Options::default());
        compiled.map(|compiled| compiled.set).map_err(|faults| faults.to_string())
    }

    #[test]
    fn faults_have_the_name_of_the_resource_and_the_words_of_the_reference() {
        let (unset, undefined) = (any("a/b/c", "x", 0, 1), any("n", "y", 12, 1));
        let faults = compile(vec![undefined, unset, any("good", "z", 1, 1)], false).unwrap_err();
        let expected = "a/b/c: invalid rate limit unit 'UNKNOWN'\nn: invalid rate limit unit '12'";
        assert_eq!(faults, expected);

        let faults = compile(vec![any("b", "d", 1, 1), any("a", "d", 1, 1)], false).unwrap_err();
        assert_eq!(faults, "b: duplicate domain 'd' in config file");
        let faults = compile(vec![any("a", "", 1, 1)], false).unwrap_err();
        assert_eq!(faults, "a: config file cannot have empty domain");
    }

    #[test]
    fn resource_that_is_none_is_a_fault() {
        let other = Any { type_url: "t".to_owned(), ..any("a", "d", 1, 1) };
        let faults = compile(vec![other], false).unwrap_err();
        assert!(faults.starts_with("a resource: is of type \"t\", expected "), "{faults}");
        let damaged = Any { value: vec![0xff], ..any("a", "d", 1, 1) };
        let faults = compile(vec![damaged], false).unwrap_err();
        assert!(faults.starts_with("a resource: cannot be decoded: "), "{faults}");
    }

    #[test]
    fn resources_of_one_domain_are_merged_where_that_is_allowed() {
        let set = compile(vec![any("b", "d", 1, 1), any("a", "d", 2, 1)], true).unwrap();
        let labels: Vec<_> = set.rules().iter().map(|rule| rule.label.as_str()).collect();
        assert_eq!(labels, ["key-a", "key-b"]);
        assert_eq!(set.rules()[1].place.to_string(), "a");
    }

    #[test]
    fn order_of_resources_changes_nothing() {
        let (a, b) = (any("a", "x", 1, 1), any("b", "y", 1, 2));
        let one = compile(vec![a.clone(), b.clone()], false).unwrap();
        assert_eq!(one.version(), compile(vec![b, a], false).unwrap().version());
    }

    #[test]
    fn held_domains_stay_beside_new_ones_and_give_way_to_them() {
        let old = read(vec![any("a", "x", 1, 1), any("b", "y", 1, 1)], false);
        let new = read(vec![any("a", "x", 1, 9)], false);
        let all = with(&new.sources, &old.sources);
        assert_eq!(all.keys().map(AsRef::as_ref).collect::<Vec<_>>(), ["x", "y"]);
        assert_eq!(all["x"], new.sources["x"]);
        assert_eq!(all["y"], old.sources["y"]);
    }
}
