//! What good files compile to.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tollgate::domain::{Algorithm, Charge, Limit, Unit};
use tollgate::policy::{
    AlgorithmName, ChargeName, Compiled, Cost, Domain, Estimate, HoldTerms, How, LeaseTerms,
    LimitKind, OnStoreFailure, OnUnknown, Options, PolicySet, Rule, RuleLimit, Source, compile,
    load,
};

use super::fixtures;

fn load_fixture(name: &str) -> Compiled {
    load(&fixtures("valid").join(name), &Options::default())
        .unwrap_or_else(|faults| panic!("{faults}"))
}

fn rule<'s>(set: &'s PolicySet, domain: &str, entries: &[(&str, &str)]) -> Option<&'s Arc<Rule>> {
    let entries = entries.iter().map(|(key, value)| (key.as_bytes(), value.as_bytes()));
    set.domain(domain.as_bytes()).expect("a known domain").find(entries)
}

fn counted(
    limit: Limit,
    (unit, unit_multiplier): (Unit, u32),
    on_store_failure: Option<OnStoreFailure>,
) -> LimitKind {
    LimitKind::Counted {
        limit,
        unit,
        unit_multiplier,
        on_store_failure,
        lease: None,
        calendar: None,
        hold: None,
        cost: Cost::Hits,
    }
}

#[test]
fn every_key_reaches_the_rule() {
    let Compiled { set, warnings, .. } = load_fixture("every-key.yaml");
    assert_eq!(warnings, []);
    let labels: Vec<_> = set.rules().iter().map(|rule| rule.label.as_str()).collect();
    let orders = "client/path='/api/v1/orders'";
    let under_secret = [
        "secret=<1>/method",
        "secret=<1>/burst",
        "secret=<1>/tokens",
        "secret=<1>/calendar",
        "secret=<1>/wait",
        "secret=<1>/brief",
        "user",
    ];
    assert_eq!(labels[..3], ["client=gold-*", "client", orders]);
    assert_eq!(labels[3..], under_secret);
    for (rule, index) in set.rules().iter().zip(0..) {
        assert_eq!((rule.index, &*rule.domain), (index, "every-key"));
    }

    let gold = rule(&set, "every-key", &[("client", "gold-7")]).unwrap();
    let [entry] = &*gold.path else { panic!("one entry") };
    assert_eq!((&*entry.key, &entry.how), ("client", &How::Pattern("gold-*".into())));
    assert!(entry.share && entry.value_to_metric && !entry.sensitive);
    assert!(!gold.shadow && !gold.quota && !gold.detailed_metric);
    assert_eq!(
        json!(gold.metadata.as_deref()),
        json!({"tier": "gold", "weight": 1.5, "tags": ["a", "2", 3, true, null],
               "nested": {"since": "2026-01-31"}})
    );
    assert!(gold.place.to_string().ends_with("every-key.yaml:4:5"), "{}", gold.place);

    let basic = rule(&set, "every-key", &[("client", "silver")]).unwrap();
    assert!(basic.shadow && basic.detailed_metric && !basic.quota);
    assert_eq!(basic.limits[0].name.as_deref(), Some("basic"));
    let orders = [("client", "silver"), ("path", "/api/v1/orders")];
    let orders = rule(&set, "every-key", &orders).unwrap();
    assert!(orders.quota && !orders.shadow);
    assert_eq!(orders.limits[0].kind, LimitKind::Unlimited);
    let secret = [("secret", "s3cret"), ("method", "GET")];
    assert!(rule(&set, "every-key", &secret).unwrap().path[0].sensitive);
}

#[test]
fn limits_have_the_numbers_as_written_and_the_defaults() {
    let Compiled { set, .. } = load_fixture("every-key.yaml");
    let limits = &rule(&set, "every-key", &[("client", "gold-7")]).unwrap().limits;
    let limit = |requests, period, algorithm, charge| {
        Limit::new(requests, Duration::from_secs(period), algorithm, charge).unwrap()
    };
    let bucket = |burst| Algorithm::TokenBucket { burst };
    let always = |max_debt| Charge::Always { max_debt };
    let sliding = Algorithm::SlidingWindow { slots: 20 };
    let expected = [
        counted(limit(10, 1, sliding, Charge::Admitted), (Unit::Second, 1), None),
        counted(
            limit(1_000, 300, bucket(200), always(Some(2_000))),
            (Unit::Minute, 5),
            Some(OnStoreFailure::Deny),
        ),
        counted(
            limit(50, 3_600, bucket(50), always(Some(7))),
            (Unit::Hour, 1),
            Some(OnStoreFailure::Allow),
        ),
        counted(
            limit(0, 30 * 86_400, Algorithm::FixedWindow, always(None)),
            (Unit::Month, 1),
            None,
        ),
    ];
    let kinds: Vec<_> = limits.iter().map(|limit| limit.kind.clone()).collect();
    assert_eq!(kinds, expected);
    let names: Vec<_> = limits.iter().map(|limit| limit.name.as_deref()).collect();
    assert_eq!(names, [Some("per second"), Some("per five minutes"), None, None]);
    assert_eq!(limits[0].replaces, [Arc::<str>::from("basic")]);
}

#[test]
fn lease_is_a_share_of_the_bucket() {
    let Compiled { set, .. } = load_fixture("every-key.yaml");
    let lease = |key| {
        let rule = rule(&set, "every-key", &[("secret", "s3cret"), (key, "x")]).unwrap();
        let LimitKind::Counted { lease, .. } = &rule.limits[0].kind else { panic!("counted") };
        lease.unwrap()
    };
    let terms = |most, millis| LeaseTerms { most, ttl: Duration::from_millis(millis) };
    assert_eq!(lease("burst"), terms(1_250, 20));
    assert_eq!(lease("brief"), terms(100, 50), "a tenth for 50 ms is the default");
}

#[test]
fn wait_is_part_of_the_limit() {
    let Compiled { set, .. } = load_fixture("every-key.yaml");
    let rule = rule(&set, "every-key", &[("secret", "s3cret"), ("wait", "x")]).unwrap();
    let waits = rule.limits.iter().map(|limit| match &limit.kind {
        LimitKind::Counted { limit, .. } => limit.max_wait(),
        LimitKind::Unlimited => panic!("counted"),
    });
    assert_eq!(waits.collect::<Vec<_>>(), [Duration::from_secs(2), Duration::from_millis(1)]);
}

#[test]
fn cost_and_hold_are_terms_of_the_limit() {
    let Compiled { set, .. } = load_fixture("every-key.yaml");
    let rule = rule(&set, "every-key", &[("user", "ann")]).unwrap();
    let [budget, calls, at_a_time, unnamed] = rule.limits.as_slice() else { panic!("four limits") };
    let terms = HoldTerms {
        ttl: Duration::from_mins(5),
        estimate: Estimate::Learned(90),
        min: 2,
        max: 225,
        on_unknown: OnUnknown::Release,
        unnamed: false,
    };
    assert_eq!(budget.hold(), Some(&terms), "a learned estimate takes a quarter at most");
    let cost = |limit: &RuleLimit| {
        let kinds = [("input", 3), ("output", 2), ("cached", 5)];
        limit.cost().of(kinds.into_iter().map(|(kind, hits)| (Some(kind.as_bytes()), hits)))
    };
    assert_eq!((cost(budget), cost(calls)), (12, 3), "3, 8 and 0.5, rounded up");
    assert!(calls.hold().is_none() && at_a_time.holds());
    let terms = unnamed.hold().unwrap();
    assert!(terms.unnamed && !unnamed.holds(), "without a handle");
    assert_eq!((terms.max, terms.ttl), (40, Duration::from_secs(30)));
    assert!(set.have_holds());
}

#[test]
fn default_algorithm_applies_where_none_is_named() {
    let text =
        "domain: d\ndescriptors: [{key: a, rate_limit: {unit: day, requests_per_unit: 4}}]\n";
    for (default_algorithm, algorithm) in [
        (AlgorithmName::SlidingWindow, Algorithm::SlidingWindow { slots: 10 }),
        (AlgorithmName::TokenBucket, Algorithm::TokenBucket { burst: 4 }),
        (AlgorithmName::FixedWindow, Algorithm::FixedWindow),
    ] {
        let options = Options { default_algorithm, ..Options::default() };
        let Compiled { set, .. } = compile(&[Source::new("a", text)], &options).unwrap();
        let LimitKind::Counted { limit, .. } = &set.rules()[0].limits[0].kind else {
            panic!("counted")
        };
        assert_eq!(limit.algorithm(), algorithm);
    }
}

#[test]
fn limit_that_settles_has_no_bound_of_its_own() {
    let Compiled { set, .. } = load_fixture("every-key.yaml");
    let limits = &rule(&set, "every-key", &[("secret", "s3cret"), ("tokens", "x")]).unwrap().limits;
    let charge = |limit: &RuleLimit| match &limit.kind {
        LimitKind::Counted { limit, .. } => limit.charge(),
        LimitKind::Unlimited => panic!("counted"),
    };
    let charges: Vec<_> = limits.iter().map(charge).collect();
    assert_eq!(charges, [Some(20), None, None].map(|max_debt| Charge::Settled { max_debt }));
}

#[test]
fn default_charge_applies_where_none_is_named() {
    let text = "domain: d
descriptors:
  - {key: a, rate_limit: {unit: day, requests_per_unit: 4, algorithm: token_bucket}}
  - {key: b, rate_limit: {unit: day, requests_per_unit: 4, charge: admitted}}
";
    for (default_charge, charge) in [
        (ChargeName::Admitted, Charge::Admitted),
        (ChargeName::Always, Charge::Always { max_debt: Some(40) }),
        (ChargeName::Settled, Charge::Settled { max_debt: None }),
    ] {
        let options = Options { default_charge, ..Options::default() };
        let Compiled { set, .. } = compile(&[Source::new("a", text)], &options).unwrap();
        let charges = set.rules().iter().map(|rule| match &rule.limits[0].kind {
            LimitKind::Counted { limit, .. } => limit.charge(),
            LimitKind::Unlimited => panic!("counted"),
        });
        assert_eq!(charges.collect::<Vec<_>>(), [charge, Charge::Admitted]);
    }
}

#[test]
fn keys_and_values_are_text_as_written() {
    let Compiled { set, warnings, .. } = load_fixture("scalars-as-written.yaml");
    assert_eq!(warnings, []);
    for entry in [("42", "x"), ("code", "123"), ("version", "1.10"), ("flag", "true")] {
        assert!(rule(&set, "1.10", &[entry]).is_some(), "{entry:?}");
    }
    assert!(rule(&set, "1.10", &[("version", "1.1")]).is_none());
    for key in ["nothing", "absent"] {
        assert_eq!(rule(&set, "1.10", &[(key, "anything")]).unwrap().path[0].how, How::Any);
    }
}

#[test]
fn odd_files_give_warnings_in_their_place() {
    let Compiled { set, warnings, .. } = load_fixture("warnings.yaml");
    assert_eq!(set.domains().len(), 1);
    let found: Vec<_> = warnings
        .iter()
        .map(|warning| {
            let place = &warning.0.place;
            (place.line, place.column, warning.0.message.as_str())
        })
        .collect();
    assert_eq!(
        found,
        [
            (4, 26, "requests_per_unit is missing, so this limit lets nothing pass"),
            (5, 14, "shadow_mode does nothing on a descriptor without limits"),
            (7, 6, "value \"xy*\" is never reached: \"x*\" matches first"),
            (9, 6, "key \"d\" alone is never reached: \"*\" matches first"),
            (10, 94, "no limit of this domain is named \"nobody\""),
            (11, 97, "a shadow rule replaces \"enforced\", which is enforced"),
            (12, 6, "the \"*\" in key \"g*\" stands for itself"),
            (12, 45, "requests_per_unit means nothing beside unlimited: true"),
            (13, 21, "no address matches \"10.0.0.0/8\": values are compared as text"),
            (13, 97, "no limit of this domain is named \"enforcd\""),
            (14, 1, "a second document is not read"),
        ]
    );
    let hints: Vec<_> = warnings.iter().filter_map(|warning| warning.0.hint.as_deref()).collect();
    for hint in [
        "the names are \"enforced\"",
        "did you mean \"enforced\"?",
        "let Envoy send the network: actions masked_remote_address or remote_address_match, or \
         write \"10.*\" with share_threshold: true",
    ] {
        assert!(hints.contains(&hint), "no {hint} in {hints:#?}");
    }
}

#[test]
fn domain_without_rules_is_known() {
    let Compiled { set, warnings, .. } = load_fixture("no-rules.yaml");
    assert_eq!((set.domains().len(), set.rules().len(), warnings.len()), (1, 0, 0));
    assert!(set.domain(b"no-rules").unwrap().find([(&b"a"[..], &b"b"[..])]).is_none());
}

#[test]
fn directory_is_one_set() {
    let Compiled { set, .. } = load(&fixtures("valid"), &Options::default()).unwrap();
    let names: Vec<_> =
        set.domains().into_iter().map(|domain: &Arc<Domain>| domain.name()).collect();
    let names: Vec<_> = names.into_iter().map(|name| &**name).collect();
    assert_eq!(names, ["1.10", "adaptive", "every-key", "no-rules", "warnings"]);
    let indices: Vec<_> = set.rules().iter().map(|rule| rule.index).collect();
    assert_eq!(indices, (0..set.rules().len() as u32).collect::<Vec<_>>());
}

#[test]
fn files_of_one_domain_merge_only_when_told_to() {
    let file = |name: &str, key: &str| {
        let limit = "rate_limit: {unit: day, requests_per_unit: 1}";
        Source::new(name, format!("domain: d\ndescriptors:\n  - {{key: {key}, {limit}}}\n"))
    };
    let merge = Options { merge_domains: true, ..Options::default() };
    let (one, two) = (file("one.yaml", "a"), file("two.yaml", "b"));
    let Compiled { set, .. } = compile(&[one.clone(), two], &merge).unwrap();
    assert!(rule(&set, "d", &[("a", "")]).is_some() && rule(&set, "d", &[("b", "")]).is_some());

    let faults = compile(&[one, file("two.yaml", "a")], &merge).unwrap_err().to_string();
    assert!(faults.starts_with("two.yaml:3:6: duplicate descriptor: key \"a\""), "{faults}");
    assert!(faults.contains("first at one.yaml:3:6"), "{faults}");
}

#[test]
fn empty_directory_is_an_empty_set_and_a_missing_path_a_fault() {
    let root = tempfile::tempdir().unwrap();
    let Compiled { set, warnings, .. } = load(root.path(), &Options::default()).unwrap();
    assert_eq!((set.domains().len(), warnings.len()), (0, 1));
    let faults = load(&root.path().join("missing"), &Options::default()).unwrap_err();
    assert!(faults.to_string().contains("missing: cannot be read: "), "{faults}");
    assert!(PolicySet::default().domain(b"d").is_none());
}

#[test]
fn version_follows_the_contents() {
    let version = |texts: &[&str]| {
        let sources: Vec<_> = texts.iter().map(|text| Source::new("a.yaml", *text)).collect();
        compile(&sources, &Options::default()).unwrap().set.version().to_owned()
    };
    let one = version(&["domain: d\n"]);
    assert_eq!((one.len(), &one), (12, &version(&["domain: d\n"])));
    assert_ne!(one, version(&["domain: e\n"]));
}
