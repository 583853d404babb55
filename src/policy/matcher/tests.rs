//! The tree against the matching rules, told as examples and as a naive walk.

use proptest::prelude::*;

use super::super::{How, Options, PathEntry, PolicySet, Source, compile};

const LIMIT: &str = "rate_limit: {unit: day, requests_per_unit: 1}";

fn set_of(descriptors: &str) -> PolicySet {
    let text = format!("domain: d\ndescriptors:\n{}", descriptors.replace("LIMIT", LIMIT));
    compile(&[Source::new("a.yaml", text)], &Options::default()).unwrap().set
}

fn label_of(set: &PolicySet, entries: &[(&str, &str)]) -> Option<String> {
    let entries = entries.iter().map(|(key, value)| (key.as_bytes(), value.as_bytes()));
    set.domain(b"d").unwrap().find(entries).map(|rule| rule.label.clone())
}

#[test]
fn exact_value_beats_pattern_beats_key_alone() {
    let set = set_of(
        "- {key: a, LIMIT}\n- {key: a, value: 'x*', LIMIT}\n- {key: a, value: 'xy*', LIMIT}\n\
         - {key: a, value: xyz, LIMIT}\n",
    );
    for (value, label) in
        [("xyz", "a=xyz"), ("xyzz", "a=x*"), ("x", "a=x*"), ("", "a"), ("yx", "a")]
    {
        assert_eq!(label_of(&set, &[("a", value)]).as_deref(), Some(label), "{value}");
    }
}

#[test]
fn only_the_node_of_the_last_entry_counts() {
    let set =
        set_of("- key: a\n  LIMIT\n  descriptors:\n  - {key: b, descriptors: [{key: c, LIMIT}]}\n");
    let (a, b, c) = (("a", "1"), ("b", "2"), ("c", "3"));
    assert_eq!(label_of(&set, &[a]).as_deref(), Some("a"));
    assert_eq!(label_of(&set, &[a, b]), None);
    assert_eq!(label_of(&set, &[a, b, c]).as_deref(), Some("a/b/c"));
    assert_eq!(label_of(&set, &[a, b, c, c]), None);
    assert_eq!(label_of(&set, &[b]), None);
    assert_eq!(label_of(&set, &[]), None);
    assert_eq!(label_of(&set, &[b, a]), None);
}

#[test]
fn choice_at_a_level_is_final() {
    let set = set_of(
        "- {key: a, value: x, descriptors: [{key: only, LIMIT}]}\n\
         - {key: a, descriptors: [{key: b, LIMIT}]}\n",
    );
    assert_eq!(label_of(&set, &[("a", "x"), ("b", "1")]), None);
    assert_eq!(label_of(&set, &[("a", "y"), ("b", "1")]).as_deref(), Some("a/b"));
}

#[test]
fn keys_and_values_are_never_joined() {
    let set = set_of("- {key: a, value: b_c, LIMIT}\n- {key: x_y, LIMIT}\n");
    assert!(label_of(&set, &[("a", "b_c")]).is_some());
    assert_eq!(label_of(&set, &[("a_b", "c")]), None);
    assert_eq!(label_of(&set, &[("a_b_c", "")]), None);
    assert_eq!(label_of(&set, &[("x", "y")]), None);
}

#[test]
fn bytes_that_are_not_utf8_match_like_others() {
    let set = set_of("- {key: a, value: 'x*', LIMIT}\n- {key: b, LIMIT}\n");
    let domain = set.domain(b"d").unwrap();
    assert!(domain.find([(&b"a"[..], &b"x\xff\xfe"[..])]).is_some());
    assert!(domain.find([(&b"b"[..], &b"\x80"[..])]).is_some());
    assert!(domain.find([(&b"b\x80"[..], &b""[..])]).is_none());
    assert!(set.domain(b"d\xff").is_none());
}

/// Returns true if a value passes, by definition.
fn takes(how: &How, value: &str) -> bool {
    fn glob(pattern: &[u8], value: &[u8]) -> bool {
        match pattern {
            [] => value.is_empty(),
            [b'*', rest @ ..] => (0..=value.len()).any(|i| glob(rest, &value[i..])),
            [p, rest @ ..] => value.first() == Some(p) && glob(rest, &value[1..]),
        }
    }
    match how {
        How::Exact(text) => &**text == value,
        How::Pattern(text) => glob(text.as_bytes(), value.as_bytes()),
        How::Any => true,
    }
}

/// The label for a descriptor, by going through the paths of all rules; every node must have a
/// rule.
fn walk(set: &PolicySet, entries: &[(String, String)]) -> Option<String> {
    let mut taken: Vec<PathEntry> = Vec::new();
    for (key, value) in entries {
        let level = set.rules().iter().map(|rule| &rule.path);
        let level = level.filter(|p| p.len() == taken.len() + 1 && p.starts_with(&taken));
        let fits =
            level.filter_map(|p| p.last()).filter(|e| *e.key == **key && takes(&e.how, value));
        let rank = |entry: &&PathEntry| match entry.how {
            How::Exact(_) => 0,
            How::Pattern(_) => 1,
            How::Any => 2,
        };
        // The first of the best: rules are in file order.
        taken.push(fits.min_by_key(rank)?.clone());
    }
    let rule = set.rules().iter().find(|rule| rule.path == taken)?;
    Some(rule.label.clone())
}

/// Keys, as numbers, and values.
type Children = Vec<(u8, String)>;

/// A tree of nodes with limits, as YAML; duplicates among siblings are left out.
fn tree(shape: &[(u8, String, Children)]) -> String {
    let mut nodes = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for (key, value, below) in shape {
        if !seen.insert((key, value)) {
            continue;
        }
        let mut unique = std::collections::HashSet::new();
        let children: Vec<_> = below.iter().filter(|child| unique.insert(*child)).collect();
        let node = |(key, value): (u8, &str)| format!("key: k{key}, value: '{value}', LIMIT");
        let list: Vec<_> = children.iter().map(|(k, v)| format!("{{{}}}", node((*k, v)))).collect();
        nodes.push(format!("- {{{}, descriptors: [{}]}}\n", node((*key, value)), list.join(", ")));
    }
    nodes.concat()
}

proptest! {
    #[test]
    fn finding_agrees_with_a_naive_walk(
        shape in prop::collection::vec(
            (0..2_u8, "[ab*]{0,3}", prop::collection::vec((0..2_u8, "[ab*]{0,3}"), 0..4)), 1..8),
        entries in prop::collection::vec(("k[0-2]", "[ab]{0,4}"), 0..4),
    ) {
        let set = set_of(&tree(&shape));
        let pairs: Vec<_> = entries.iter().map(|(k, v)| (&**k, &**v)).collect();
        prop_assert_eq!(label_of(&set, &pairs), walk(&set, &entries));
    }
}
