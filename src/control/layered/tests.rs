use super::*;

fn yaml(domain: &str, requests: u32) -> String {
    let limit = format!("{{unit: minute, requests_per_unit: {requests}}}");
    format!("domain: {domain}\ndescriptors: [{{key: a, rate_limit: {limit}}}]\n")
}

const fn since(version: u64) -> Since {
    Since { version, at: Timestamp::from_micros(10 * version) }
}

fn files(sources: &[(&str, &str)]) -> Files {
    Files::of(sources.iter().map(|(name, text)| Source::new(*name, *text)).collect())
}

fn replace(layered: &mut Layered, version: u64, sources: &[(&str, &str)]) -> Replaced {
    layered.replace(Origin::Files, &files(sources), since(version)).unwrap()
}

/// One of a single file.
fn layered() -> Layered {
    let mut layered = Layered::new(Options::default());
    replace(&mut layered, 1, &[("a.yaml", &yaml("edge", 1))]);
    layered
}

fn apply(layered: &mut Layered, changes: &[(&str, u64, Option<&str>)]) -> Vec<Arc<str>> {
    let change = |(domain, version, yaml): &(&str, u64, Option<&str>)| {
        let text = yaml.map(|yaml| NewText { yaml: yaml.into(), since: since(*version) });
        ((*domain).into(), text)
    };
    layered.change(Origin::Registry, changes.iter().map(change).collect())
}

fn places(layered: &Layered) -> Vec<String> {
    layered.set().rules().iter().map(|rule| rule.place.to_string()).collect()
}

#[test]
fn applied_policy_joins_files_and_a_file_of_its_domain_wins() {
    use Standing::{InForce, ShadowedBy};

    let mut layered = layered();
    let (orders, edge) = (yaml("orders", 2), yaml("edge", 3));
    apply(&mut layered, &[("orders", 1, Some(&orders)), ("edge", 2, Some(&edge))]);
    assert_eq!(places(&layered), ["a.yaml:2:15", "rpc:orders:2:15"]);
    assert_eq!(layered.standings("orders"), [(Origin::Registry, since(1), InForce)]);
    let shadowed = (Origin::Registry, since(2), ShadowedBy(Origin::Files));
    assert_eq!(layered.standings("edge"), [(Origin::Files, since(1), InForce), shadowed]);

    replace(&mut layered, 2, &[("b.yaml", &yaml("orders", 4))]);
    assert_eq!(places(&layered), ["b.yaml:2:15", "rpc:edge:2:15"]);
    assert_eq!(layered.standings("edge"), [(Origin::Registry, since(2), InForce)]);
    assert_eq!(layered.standings("orders").len(), 2);
    assert_eq!(layered.standings("unknown"), []);
}

#[test]
fn faulty_policy_is_left_out_and_harms_no_other() {
    let mut layered = layered();
    let changes = [
        ("bad", 1, Some("domain: bad\nrules: []\n")),
        ("other", 2, Some(&*yaml("another", 1))),
        ("good", 3, Some(&*yaml("good", 1))),
    ];
    assert_eq!(apply(&mut layered, &changes).len(), 3);
    assert_eq!(places(&layered), ["a.yaml:2:15", "rpc:good:2:15"]);
    let faults = |domain: &str| match layered.standings(domain).pop() {
        Some((Origin::Registry, _, Standing::LeftOut(faults))) => faults.to_string(),
        other => panic!("{other:?}"),
    };
    assert!(faults("bad").contains("rpc:bad:2:1: unknown key \"rules\""));
    assert_eq!(faults("other"), "rpc:other: is the policy of domain \"another\"");
}

#[test]
fn repeated_change_is_none_and_of_two_the_later_call_counts() {
    let mut layered = layered();
    let (two, three) = (yaml("orders", 2), yaml("orders", 3));
    assert_eq!(apply(&mut layered, &[("orders", 5, Some(&two))]).len(), 1);
    assert!(apply(&mut layered, &[("orders", 5, Some(&two))]).is_empty());
    assert_eq!(apply(&mut layered, &[("orders", 4, Some(&three))]).len(), 1);
    assert_eq!(layered.standings("orders"), [(Origin::Registry, since(4), Standing::InForce)]);
    assert_eq!(apply(&mut layered, &[("orders", 6, None)]).len(), 1);
    assert!(apply(&mut layered, &[("orders", 6, None)]).is_empty());
    assert_eq!(layered.offers(Origin::Registry).count(), 0);
}

#[test]
fn files_with_faults_leave_everything_as_it_is() {
    let mut layered = layered();
    apply(&mut layered, &[("orders", 1, Some(&yaml("orders", 2)))]);
    let bad = files(&[("b.yaml", "domain: [")]);
    assert!(layered.replace(Origin::Files, &bad, since(2)).is_err());
    assert_eq!(places(&layered), ["a.yaml:2:15", "rpc:orders:2:15"]);
}

#[test]
fn feed_that_loses_all_policies_is_refused_unless_that_is_allowed() {
    let mut layered = layered();
    apply(&mut layered, &[("orders", 1, Some(&yaml("orders", 2)))]);
    let none = layered.replace(Origin::Files, &files(&[]), since(2));
    assert!(matches!(none, Err(Refusal::Empty(1))), "{none:?}");
    assert_eq!(places(&layered), ["a.yaml:2:15", "rpc:orders:2:15"]);
    layered.options.allow_empty = true;
    layered.replace(Origin::Files, &files(&[]), since(2)).unwrap();
    assert_eq!(places(&layered), ["rpc:orders:2:15"]);
    // There was none before.
    layered.options.allow_empty = false;
    layered.replace(Origin::Files, &files(&[]), since(3)).unwrap();
}

#[test]
fn domains_that_differ_are_listed_and_others_keep_their_time() {
    let mut layered = layered();
    let (edge, orders, other) = (yaml("edge", 1), yaml("orders", 2), yaml("orders", 3));
    let replaced = replace(&mut layered, 2, &[("x.yaml", &orders), ("y.yaml", &edge)]);
    let added = Difference { added: vec!["orders".into()], ..Difference::default() };
    assert_eq!(replaced.difference, added);
    assert_eq!(layered.standings("edge"), [(Origin::Files, since(1), Standing::InForce)]);
    // In the order of the files.
    assert_eq!(places(&layered), ["x.yaml:2:15", "y.yaml:2:15"]);
    let replaced = replace(&mut layered, 3, &[("x.yaml", &other)]);
    let difference = Difference {
        removed: vec!["edge".into()],
        changed: vec!["orders".into()],
        ..Difference::default()
    };
    assert_eq!(replaced.difference, difference);
    assert_eq!(layered.standings("orders"), [(Origin::Files, since(3), Standing::InForce)]);
}

fn from_control_plane(layered: &mut Layered, version: u64, sources: &[(&str, &str)]) -> Replaced {
    layered.replace(Origin::Xds, &files(sources), since(version)).unwrap()
}

#[test]
fn control_plane_gives_way_to_files_and_goes_before_applied_policies() {
    use Standing::{InForce, ShadowedBy};

    let mut layered = layered();
    let (edge, orders) = (yaml("edge", 2), yaml("orders", 3));
    from_control_plane(&mut layered, 2, &[("x/edge", &edge), ("x/orders", &orders)]);
    apply(&mut layered, &[("orders", 1, Some(&orders))]);
    assert_eq!(places(&layered), ["a.yaml:2:15", "x/orders:2:15"]);
    let standings = |domain: &str| -> Vec<_> {
        layered
            .standings(domain)
            .into_iter()
            .map(|(origin, _, standing)| (origin, standing))
            .collect()
    };
    let waiting = ShadowedBy(Origin::Files);
    assert_eq!(standings("edge"), [(Origin::Files, InForce), (Origin::Xds, waiting)]);
    let waiting = ShadowedBy(Origin::Xds);
    assert_eq!(standings("orders"), [(Origin::Xds, InForce), (Origin::Registry, waiting)]);
}

#[test]
fn control_plane_may_take_away_all_of_its_policies() {
    let mut layered = layered();
    from_control_plane(&mut layered, 2, &[("x", &yaml("orders", 3))]);
    let replaced = from_control_plane(&mut layered, 3, &[]);
    assert_eq!(replaced.difference.removed, [Arc::from("orders")]);
    assert_eq!(places(&layered), ["a.yaml:2:15"]);
}

#[test]
fn applied_policies_wait_for_a_control_plane_that_may_have_others() {
    let mut layered = layered().awaiting(Origin::Xds);
    apply(&mut layered, &[("orders", 1, Some(&yaml("orders", 3)))]);
    assert_eq!(layered.awaits(), Some(Origin::Xds));
    assert_eq!(places(&layered), ["a.yaml:2:15"]);
    from_control_plane(&mut layered, 2, &[]);
    assert_eq!(layered.awaits(), None);
    assert_eq!(places(&layered), ["a.yaml:2:15", "rpc:orders:2:15"]);
}
