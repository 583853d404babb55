use proptest::collection::vec;
use proptest::prelude::*;
use prost_types::value::Kind;

use super::super::pb::RateLimitReplace;
use super::*;
use crate::policy::{LimitKind, Options, PolicySet, Source, compile};

fn policy(unit: i32, requests: u32) -> RateLimitPolicy {
    RateLimitPolicy { unit, requests_per_unit: requests, ..RateLimitPolicy::default() }
}

fn descriptor(key: &str, value: &str, limit: Option<RateLimitPolicy>) -> RateLimitDescriptor {
    let (key, value) = (key.to_owned(), value.to_owned());
    RateLimitDescriptor { key, value, rate_limit: limit, ..RateLimitDescriptor::default() }
}

fn over(mut parent: RateLimitDescriptor, below: &[RateLimitDescriptor]) -> RateLimitDescriptor {
    parent.descriptors = encoded(below);
    parent
}

fn encoded(descriptors: &[RateLimitDescriptor]) -> Vec<Bytes> {
    descriptors.iter().map(|descriptor| descriptor.encode_to_vec().into()).collect()
}

fn read(descriptors: &[RateLimitDescriptor]) -> (Draft, Findings) {
    let (mut tree, mut found) = (Tree::new("d"), Findings::default());
    tree.add(encoded(descriptors), &mut found);
    (tree.into_draft(), found)
}

fn set(draft: Draft) -> PolicySet {
    compile(&[Source::drafted("r", draft, Vec::new())], &Options::default()).unwrap().set
}

/// The requests per second, minute and so on of the rule of these entries.
fn limits(set: &PolicySet, entries: &[(&str, &str)]) -> Vec<u32> {
    let entries = entries.iter().map(|(key, value)| (key.as_bytes(), value.as_bytes()));
    let rule = set.domain(b"d").unwrap().find(entries).expect("a rule");
    let requests = |kind: &LimitKind| match kind {
        LimitKind::Unlimited => u32::MAX,
        LimitKind::Counted { limit, .. } => limit.requests(),
    };
    rule.limits.iter().map(|limit| requests(&limit.kind)).collect()
}

#[test]
fn tree_matches_as_a_file_does() {
    let top = over(
        descriptor("route", "r/*", None),
        &[
            over(
                descriptor("user", "", Some(policy(2, 5))),
                &[descriptor("m", "x", Some(policy(3, 7)))],
            ),
            descriptor("user", "u*", Some(policy(4, 6))),
        ],
    );
    let (draft, found) = read(&[descriptor("first", "1", Some(policy(7, 1))), top]);
    assert_eq!(found, Findings::default());
    let set = set(draft);
    assert_eq!(limits(&set, &[("route", "r/1"), ("user", "a")]), [5]);
    assert_eq!(limits(&set, &[("route", "r/1"), ("user", "ua")]), [6], "the pattern first");
    assert_eq!(limits(&set, &[("route", "r/1"), ("user", "a"), ("m", "x")]), [7]);
    assert_eq!(limits(&set, &[("first", "1")]), [1]);
    let labels: Vec<_> = set.rules().iter().map(|rule| &*rule.label).collect();
    assert_eq!(
        labels,
        ["first=1", "route='r/*'/user", "route='r/*'/user/m=x", "route='r/*'/user=u*"]
    );
}

#[test]
fn units_have_the_numbers_of_the_protocol() {
    let seconds = [1, 60, 3_600, 86_400, 30 * 86_400, 365 * 86_400, 7 * 86_400];
    for (number, seconds) in (1..).zip(seconds) {
        assert_eq!(unit(number).unwrap().seconds(), seconds, "{number}");
    }
    assert_eq!((unit(0), unit(8), unit(-1)), (None, None, None));
}

#[test]
fn unlimited_has_no_unit() {
    let unlimited = RateLimitPolicy { unlimited: true, ..policy(0, 9) };
    let (draft, found) = read(&[descriptor("k", "", Some(unlimited.clone()))]);
    assert_eq!(found, Findings::default());
    assert_eq!(limits(&set(draft), &[("k", "v")]), [u32::MAX]);
    let with_unit = RateLimitPolicy { unit: 2, ..unlimited };
    let (_, found) = read(&[descriptor("k", "", Some(with_unit))]);
    assert_eq!(found.faults, ["should not specify rate limit unit when unlimited"]);
}

#[test]
fn siblings_of_one_key_and_value_are_joined() {
    let below = |key: &str| [descriptor(key, "", Some(policy(1, 1)))];
    let (draft, found) = read(&[
        over(descriptor("ip", "10.0.0.0/8", Some(policy(2, 20))), &below("a")),
        over(descriptor("ip", "10.0.0.0/8", Some(policy(3, 100))), &below("b")),
        descriptor("ip", "10.0.0.0/8", Some(policy(2, 5))),
        descriptor("ip", "10.0.0.0/8", None),
    ]);
    assert_eq!(found.faults, [""; 0]);
    let joined = "two descriptors of key \"ip\", value \"10.0.0.0/8\" are joined";
    assert_eq!(found.warnings, [joined; 3]);
    let set = set(draft);
    let ip = ("ip", "10.0.0.0/8");
    assert_eq!(limits(&set, &[ip]), [5, 100], "the smaller one of a unit");
    for key in ["a", "b"] {
        assert_eq!(limits(&set, &[ip, (key, "x")]), [1]);
    }
}

#[test]
fn limit_that_only_reports_does_not_weaken_its_twin() {
    let shadow =
        RateLimitDescriptor { shadow_mode: true, ..descriptor("k", "", Some(policy(1, 1))) };
    let enforced = descriptor("k", "", Some(policy(2, 9)));
    for twins in [[shadow.clone(), enforced.clone()], [enforced, shadow.clone()]] {
        let set = set(read(&twins).0);
        assert_eq!(limits(&set, &[("k", "v")]), [9]);
        assert!(!set.rules()[0].shadow);
    }
    let set = set(read(&[descriptor("k", "", None), shadow]).0);
    assert!(set.rules()[0].shadow);
}

#[test]
fn names_become_fit_for_headers_and_still_replace() {
    let named = |name: &str, replaces: &[&str]| RateLimitPolicy {
        name: name.to_owned(),
        replaces: replaces
            .iter()
            .map(|name| RateLimitReplace { name: (*name).to_owned() })
            .collect(),
        ..policy(1, 1)
    };
    let (draft, found) = read(&[
        descriptor("a", "", Some(named("größe \"1\"", &[]))),
        descriptor("b", "", Some(named("b", &["größe \"1\""]))),
    ]);
    assert_eq!((found.faults.len(), found.warnings.len()), (0, 2));
    let set = set(draft);
    assert_eq!(set.rules()[0].limits[0].name.as_deref(), Some("gr__e _1_"));
    assert_eq!(&*set.rules()[1].limits[0].replaces[0], "gr__e _1_");

    let (_, found) = read(&[descriptor("a", "", Some(named("a", &["a", ""])))]);
    let own = "replaces should not contain name of same descriptor";
    assert_eq!(found.faults, [own, "should not have an empty replaces entry"]);
}

#[test]
fn metadata_beyond_bounds_is_left_out_and_refuses_nothing() {
    let text = |text: String| prost_types::Value { kind: Some(Kind::StringValue(text)) };
    let with = |value: String| RateLimitDescriptor {
        metadata: Struct { fields: [("tier".to_owned(), text(value))].into() }
            .encode_to_vec()
            .into(),
        ..descriptor("k", "", Some(policy(1, 1)))
    };
    let (draft, found) = read(&[with("gold".to_owned())]);
    assert_eq!(found, Findings::default());
    assert_eq!(draft.nodes[0].metadata.as_ref().unwrap()["tier"], "gold");
    let (draft, found) = read(&[with("x".repeat(5_000))]);
    assert_eq!((draft.nodes[0].metadata.as_ref(), found.faults.len()), (None, 0));
    assert!(found.warnings[0].starts_with("metadata is left out: "), "{found:?}");
}

#[test]
fn empty_key_and_damaged_descriptor_are_faults() {
    let (mut tree, mut found) = (Tree::new("d"), Findings::default());
    let mut descriptors = encoded(&[descriptor("", "v", None)]);
    descriptors.push(Bytes::from_static(&[0xff]));
    tree.add(descriptors, &mut found);
    assert_eq!(found.faults[0], "descriptor has empty key");
    assert!(found.faults[1].starts_with("a descriptor cannot be decoded: "), "{found:?}");
}

/// The stack of a test has 2 MiB, as that of a thread of the writer.
#[test]
fn deepest_chain_compiles_matches_and_is_dropped() {
    let chain = |levels: usize| {
        let leaf = descriptor("k", "v", Some(policy(1, 3)));
        (1..levels).fold(leaf, |below, _| over(descriptor("k", "v", None), &[below]))
    };
    let (draft, found) = read(&[chain(MAX_LEVELS)]);
    assert_eq!(found, Findings::default());
    let set = set(draft);
    assert_eq!(limits(&set, &vec![("k", "v"); MAX_LEVELS]), [3]);
    assert!(!set.domain(b"d").unwrap().marks_sensitive());
    drop(set);
    let (_, found) = read(&[chain(MAX_LEVELS + 1)]);
    assert_eq!(found.faults, ["descriptors are nested more than 4096 deep"]);
}

proptest! {
    /// Whatever a control plane generates of valid limits is no fault, twins included.
    #[test]
    fn every_tree_of_valid_limits_compiles(
        nodes in vec((0_usize..8, "[ab]", "[xy*]{0,2}", 1_i32..8, any::<u32>(), any::<bool>()), 1..24),
    ) {
        let mut made: Vec<(usize, RateLimitDescriptor)> = Vec::new();
        for (place, key, value, unit, requests, shadow) in nodes {
            let limit = (requests % 3 > 0).then(|| policy(unit, requests));
            let node = RateLimitDescriptor { shadow_mode: shadow, ..descriptor(&key, &value, limit) };
            made.push((place, node));
        }
        let mut top = Vec::new();
        while let Some((place, node)) = made.pop() {
            let count = made.len();
            match made.get_mut(place * count / 8).filter(|_| place > 0) {
                Some((_, parent)) => parent.descriptors.push(node.encode_to_vec().into()),
                None => top.push(node),
            }
        }
        let (draft, found) = read(&top);
        prop_assert_eq!(found.faults, [""; 0]);
        let limited = draft.nodes.iter().filter(|node| !node.limits.is_empty()).count();
        prop_assert_eq!(set(draft).rules().len(), limited);
    }
}
