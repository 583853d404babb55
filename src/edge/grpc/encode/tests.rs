mod oracle;

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::domain::Unit;
use crate::edge::grpc::convert::unchecked_from_pb;
use crate::edge::grpc::settings::{HeaderStyle, ResponseSettings};
use crate::edge::pb;
use crate::limiter::key::SensitiveHasher;
use crate::limiter::mode::Mode;
use crate::limiter::report::LimitName;
use crate::limiter::snapshot::{Policies, SnapshotRef};
use crate::limiter::status::{Decided, Load};
use crate::policy::{Options, Source, compile};
use crate::telemetry::metrics::{LimitOf, Metrics};

const POLICY: &str = r#"
domain: edge
descriptors:
  - key: api_key
    sensitive: true
    metadata: {tier: gold, nested: {list: [1, two, null], yes: true}}
    rate_limit: {name: per-key, unit: minute, requests_per_unit: 10}
  - key: path
    metadata: {tier: silver, nested: {more: "é"}}
    rate_limits:
      - {unit: second, requests_per_unit: 5}
      - {name: daily, unit: day, requests_per_unit: 100}
    descriptors:
      - key: user
        rate_limit: {unlimited: true}
"#;

fn snapshot() -> SnapshotRef {
    let set = compile(&[Source::new("test", POLICY)], &Options::default()).unwrap().set;
    Policies::new(set, Arc::new(Metrics::new(0))).current()
}

fn span() -> impl Strategy<Value = Duration> {
    prop_oneof![
        Just(Duration::ZERO),
        (0..5_000_000_u64).prop_map(Duration::from_micros),
        any::<u32>().prop_map(|seconds| Duration::from_secs(seconds.into())),
        Just(Duration::from_secs(u64::MAX)),
    ]
}

fn name(snapshot: &SnapshotRef) -> impl Strategy<Value = Option<LimitName>> + use<> {
    let rule = snapshot.policies.rules().iter().find(|rule| &*rule.label == "api_key");
    let of_rule = LimitName::Rule(snapshot.rule(rule.unwrap()), 0);
    prop_oneof![
        Just(None),
        Just(Some(of_rule)),
        ".{0,200}".prop_map(|name| Some(LimitName::Own(name.into()))),
    ]
}

fn report(snapshot: &SnapshotRef) -> impl Strategy<Value = Report> + use<> {
    let many = prop_oneof![Just(1), any::<u32>()];
    let unit = proptest::sample::select(&Unit::ALL[..]);
    (any::<u32>(), unit, many, name(snapshot), any::<bool>()).prop_map(
        |(requests_per_unit, unit, unit_multiplier, name, concurrent)| Report {
            requests_per_unit,
            unit,
            unit_multiplier,
            name,
            of: LimitOf::Rule(0),
            concurrent,
        },
    )
}

fn limited(snapshot: &SnapshotRef) -> impl Strategy<Value = Outcome> + use<> {
    let remaining = prop_oneof![0..9_u64, any::<u64>()];
    let failed = vec(report(snapshot), 0..3);
    let numbers = (remaining, span(), option::of(span()), span());
    (any::<[bool; 2]>(), report(snapshot), numbers, failed).prop_map(
        |([passed, counted], limit, (remaining, reset_after, retry_after, wait), failed)| {
            let load = Load::default();
            let limited = Limited {
                passed,
                counted,
                limit,
                remaining,
                reset_after,
                retry_after,
                wait,
                failed,
                load,
            };
            Outcome::Limited(limited)
        },
    )
}

fn outcome(snapshot: &SnapshotRef) -> impl Strategy<Value = Outcome> + use<> {
    let others = [
        Outcome::NoLimit,
        Outcome::NoRule,
        Outcome::UnknownDomain,
        Outcome::Unlimited,
        Outcome::InvalidOverride,
        Outcome::OutOfBounds,
        Outcome::Settled,
        Outcome::InvalidHold,
    ];
    prop_oneof![proptest::sample::select(others.to_vec()), limited(snapshot)]
}

fn status(snapshot: &SnapshotRef) -> impl Strategy<Value = Status> + use<> {
    let rules: Vec<_> = snapshot.policies.rules().iter().map(|it| snapshot.rule(it)).collect();
    let rule = option::of(proptest::sample::select(rules));
    (rule, outcome(snapshot), any::<[bool; 3]>(), option::of(any::<u32>())).prop_map(
        |(rule, outcome, [shadow, quota, degraded], replicas)| Status {
            rule,
            outcome,
            shadow,
            quota,
            degraded,
            replicas,
            ..Status::default()
        },
    )
}

fn decision(snapshot: SnapshotRef) -> impl Strategy<Value = Decision> {
    let verdict = prop_oneof![Just(Verdict::Admit), Just(Verdict::Deny)];
    (verdict, vec(status(&snapshot), 0..4)).prop_map(move |(verdict, statuses)| {
        let decided = Decided {
            verdict,
            unavailable: None,
            statuses: statuses.into_iter().collect(),
            asked: true,
            mode: Mode::Enforce,
            snapshot: snapshot.clone(),
            hold: None,
        };
        decided.into()
    })
}

fn request() -> impl Strategy<Value = pb::RateLimitRequest> {
    use pb::rate_limit_descriptor::Entry;
    let any_bytes = prop_oneof![
        "[ -~]{0,40}".prop_map(Bytes::from),
        ".{0,200}".prop_map(Bytes::from),
        vec(any::<u8>(), 0..40).prop_map(Bytes::from),
    ];
    let entry =
        (any_bytes.clone(), any_bytes.clone()).prop_map(|(key, value)| Entry { key, value });
    let descriptor = vec(entry, 0..4).prop_map(|entries| pb::RateLimitDescriptor {
        entries,
        ..pb::RateLimitDescriptor::default()
    });
    let domain = prop_oneof![Just(Bytes::from_static(b"edge")), any_bytes];
    (domain, vec(descriptor, 4)).prop_map(|(domain, descriptors)| pb::RateLimitRequest {
        domain,
        descriptors,
        hits_addend: 1,
    })
}

fn responder() -> impl Strategy<Value = Responder> {
    let headers = [HeaderStyle::Off, HeaderStyle::Reference, HeaderStyle::Draft];
    let headers = proptest::sample::select(headers.to_vec());
    (headers, any::<bool>(), any::<bool>()).prop_map(|(headers, dynamic_metadata, delays)| {
        let settings =
            ResponseSettings { dynamic_metadata, headers, ..ResponseSettings::default() };
        let delay_header = delays.then(|| HeaderName::from_static("x-delay"));
        Responder { settings, hasher: SensitiveHasher::new(b"secret"), delay_header }
    })
}

proptest! {
    #[test]
    fn frame_reads_back_as_the_response(
        responder in responder(),
        request in request(),
        decision in decision(snapshot()),
    ) {
        let request = unchecked_from_pb(&request);
        let response = oracle::response(&responder, &request, &decision);
        let frame = responder.frame(&request, &decision);
        let (prefix, message) = frame.split_at(PREFIX_BYTES);
        prop_assert_eq!(prefix[0], 0, "not compressed");
        prop_assert_eq!(&prefix[1..], (message.len() as u32).to_be_bytes());
        prop_assert_eq!(&pb::RateLimitResponse::decode(message).unwrap(), &response);
        prop_assert_eq!(responder.respond(&request, &decision), response);
    }
}

#[test]
fn bare_answer_has_the_code_alone() {
    for (verdict, code) in [(Verdict::Admit, 1), (Verdict::Deny, 2)] {
        assert_eq!(&*bare(verdict), [0, 0, 0, 0, 2, 8, code]);
    }
}
