//! Policies at run time and the kill switch.

use tollgate::control::layered::Origin;
use tollgate::domain::Verdict;
use tollgate::edge::admin::pb::{
    ApplyPolicyRequest, DeletePolicyRequest, GetPolicyRequest, ListPoliciesRequest, Mode,
    SetModeRequest,
};
use tollgate::policy::{Files, Source};
use tonic::Code;

use crate::replica::{Replica, World, code, request};
use crate::traffic::POLICY;

fn orders(requests: u32) -> String {
    format!(
        "domain: orders\ndescriptors: [{{key: a, rate_limit: {{unit: day, requests_per_unit: {requests}}}}}]\n"
    )
}

fn apply(yaml: &str, etag: &str) -> ApplyPolicyRequest {
    ApplyPolicyRequest { yaml: yaml.to_owned(), etag: etag.to_owned(), validate_only: false }
}

async fn denied(replica: &Replica, domain: &str, key: &str) -> bool {
    replica.decide(&request(domain, &[&[(key, "v")]])).await.verdict == Verdict::Deny
}

#[tokio::test]
async fn applied_policy_is_in_force_everywhere_until_it_is_deleted() {
    let world = World::new();
    let (here, there) = (world.replica().await, world.replica().await);
    let mut policies = here.policies.clone();
    let applied = policies.apply_policy(apply(&orders(0), "")).await.unwrap().into_inner();
    assert_eq!((applied.domain.as_str(), applied.etag.as_str()), ("orders", "1"));
    assert!(!applied.shadowed_by_file());
    assert!(denied(&here, "orders", "a").await);
    there.follow().await;
    assert!(denied(&there, "orders", "a").await);
    let mut theirs = there.policies.clone();
    let get = GetPolicyRequest { domain: "orders".to_owned(), version: 0 };
    assert_eq!(theirs.get_policy(get.clone()).await.unwrap().into_inner(), applied);
    let list = theirs.list_policies(ListPoliciesRequest {}).await.unwrap().into_inner();
    assert_eq!((list.policies, list.file_domains), (vec![applied], vec!["edge".to_owned()]));

    let stale = policies.apply_policy(apply(&orders(5), "9")).await;
    assert_eq!(code(&stale), Code::Aborted);
    let delete =
        |etag: &str| DeletePolicyRequest { domain: "orders".to_owned(), etag: etag.to_owned() };
    assert_eq!(code(&theirs.delete_policy(delete("9")).await), Code::Aborted);
    theirs.delete_policy(delete("1")).await.unwrap();
    assert!(!denied(&there, "orders", "a").await);
    assert_eq!(code(&theirs.delete_policy(delete("")).await), Code::NotFound);
    assert_eq!(code(&theirs.get_policy(get).await), Code::NotFound);
}

#[tokio::test]
async fn answer_to_a_policy_has_the_warnings_of_check() {
    let world = World::new();
    let replica = world.replica().await;
    let yaml = "domain: d\ndescriptors: [{key: ip, value: 10.0.0.0/8, rate_limit: {unit: day, \
                requests_per_unit: 1, name: a, replaces: [{name: b}]}}]\n";
    let applied = replica.policies.clone().apply_policy(apply(yaml, "")).await.unwrap();
    let warnings = applied.into_inner().warnings;
    assert_eq!(warnings.len(), 2, "{warnings:#?}");
    assert!(warnings[0].contains("10.0.0.0/8") && warnings[0].contains("hint: "), "{warnings:#?}");
    assert!(warnings[1].contains("did you mean \"a\"?"), "{warnings:#?}");
}

#[tokio::test]
async fn policy_of_a_domain_in_the_files_waits_until_the_file_goes() {
    let world = World::new();
    let replica = world.replica().await;
    let blocking = POLICY.replace("requests_per_unit: 3,", "requests_per_unit: 0,");
    let mut policies = replica.policies.clone();
    let applied = policies.apply_policy(apply(&blocking, "")).await.unwrap().into_inner();
    assert!(applied.shadowed_by_file());
    assert!(!denied(&replica, "edge", "api_key").await);
    let other = Files::of(vec![Source::new("b.yaml", orders(1))]);
    replica.writer.replace(Origin::Files, other).await.unwrap();
    assert!(denied(&replica, "edge", "api_key").await);
}

#[tokio::test]
async fn late_replica_skips_what_it_cannot_read() {
    use bytes::Bytes;
    use tollgate::control::registry::{Change, Expect, Registry as _};

    let world = World::new();
    let replica = world.replica().await;
    replica.policies.clone().apply_policy(apply(&orders(0), "")).await.unwrap();
    let put = |key: &'static str, value: &'static str| Change {
        key: Bytes::from_static(key.as_bytes()),
        expect: Expect::Anything,
        value: Some(Bytes::from_static(value.as_bytes())),
    };
    let odd = vec![
        put("policy/old", r#"{"yaml":"domain: old\nrules: []","updated_at":1}"#),
        put("policy/odd", "not json"),
        put("mode/edge", r#"{"mode":"loud","updated_at":1}"#),
        put("client/x", "{}"),
        put("unheard/of", "x"),
    ];
    world.registry.write(odd).await.unwrap();
    let late = world.replica().await;
    late.follow().await;
    assert!(denied(&late, "orders", "a").await);
    assert_eq!(late.shared.metrics.registry.unreadable_records.get(), 4);
    assert_eq!(late.shared.metrics.policies.faulty.get(), 1);
    let list = late.policies.clone().list_policies(ListPoliciesRequest {}).await.unwrap();
    let old = list.into_inner().policies.into_iter().find(|p| p.domain == "old").unwrap();
    assert!(old.faults[0].starts_with("rpc:old:2:1: unknown key \"rules\""), "{old:?}");
}

#[tokio::test]
async fn kill_switch_turns_everywhere_and_back() {
    let world = World::new();
    let (here, there) = (world.replica().await, world.replica().await);
    here.policies.clone().apply_policy(apply(&orders(0), "")).await.unwrap();
    let set = async |domain: &str, mode: Mode| {
        let request = SetModeRequest { domain: domain.to_owned(), mode: mode.into() };
        let answer = here.policies.clone().set_mode(request).await.unwrap().into_inner();
        there.follow().await;
        (answer.mode(), answer.domain_known())
    };
    assert_eq!(set("orders", Mode::Shadow).await, (Mode::Shadow, true));
    assert!(!denied(&there, "orders", "a").await);
    assert_eq!(set("", Mode::Off).await, (Mode::Off, true));
    assert_eq!(set("orders", Mode::Enforce).await, (Mode::Enforce, true));
    assert!(denied(&there, "orders", "a").await);
    assert_eq!(there.admitted(&[("api_key", "x")], 10).await, 10);
    assert_eq!(set("", Mode::Unspecified).await, (Mode::Enforce, true));
    assert_eq!(there.admitted(&[("api_key", "x")], 10).await, 3);
    assert_eq!(set("typo", Mode::Off).await, (Mode::Off, false));
}

#[tokio::test]
async fn what_was_deleted_while_nobody_followed_is_forgotten_by_a_scan() {
    use tollgate::control::follower::Mirror as _;
    use tollgate::control::registry::Registry as _;

    let world = World::new();
    let (here, there) = (world.replica().await, world.replica().await);
    here.policies.clone().apply_policy(apply(&orders(0), "")).await.unwrap();
    let off = SetModeRequest { domain: "edge".to_owned(), mode: Mode::Off.into() };
    here.policies.clone().set_mode(off).await.unwrap();
    there.follow().await;
    there.stop_following();
    let delete = DeletePolicyRequest { domain: "orders".to_owned(), etag: String::new() };
    here.policies.clone().delete_policy(delete).await.unwrap();
    let mut keys = std::collections::HashSet::new();
    world
        .registry
        .scan(|entries| keys.extend(entries.into_iter().map(|(key, _)| key)))
        .await
        .unwrap();
    assert!(denied(&there, "orders", "a").await);
    there.writer.retain(&|key| keys.contains(key));
    there.writer.settle(0).await;
    assert!(!denied(&there, "orders", "a").await);
    assert_eq!(there.shared.modes.of(b"edge"), tollgate::limiter::mode::Mode::Off);
}
