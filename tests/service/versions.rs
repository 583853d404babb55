//! Earlier versions of policies: listed, read, and applied again.

use tollgate::edge::admin::pb::{
    GetPolicyRequest, ListPolicyVersionsRequest, PolicyVersion, RollbackPolicyRequest,
};
use tollgate::edge::pb::rate_limit_response::Code as Answer;
use tonic::Code;

use crate::support::grpc::codes;
use crate::support::operator::Operator;
use crate::support::redis::RedisServer;
use crate::support::tollgate::{Options, Tollgate, request};

fn orders(requests: usize) -> String {
    let limit = format!("{{unit: day, requests_per_unit: {requests}}}");
    format!("domain: orders\ndescriptors: [{{key: user, rate_limit: {limit}}}]\n")
}

async fn versions(operator: &Operator) -> Vec<PolicyVersion> {
    let request = ListPolicyVersionsRequest { domain: "orders".to_owned() };
    operator.policies().list_policy_versions(request).await.unwrap().into_inner().versions
}

fn rollback(version: u64, etag: &str) -> RollbackPolicyRequest {
    let (domain, etag) = ("orders".to_owned(), etag.to_owned());
    RollbackPolicyRequest { domain, version, etag, validate_only: false }
}

#[tokio::test]
async fn last_twenty_versions_are_kept_and_any_of_them_applied_again() {
    let data = tempfile::tempdir().unwrap();
    let tollgate = Options::default().data(data.path()).start();
    let operator = Operator::of(&tollgate).await;
    for requests in 0..25 {
        let applied = operator.apply(&orders(requests)).await;
        assert_eq!(applied.version, requests as u64 + 1);
    }
    let kept = versions(&operator).await;
    let numbers: Vec<_> = kept.iter().map(|version| version.version).collect();
    assert_eq!(numbers, (6..=25).rev().collect::<Vec<_>>());
    assert!(kept[0].current && kept[1..].iter().all(|version| !version.current), "{kept:?}");
    assert!(kept.iter().all(|v| v.bytes > 0 && v.updated_at.is_some()), "{kept:?}");

    let get = |version| GetPolicyRequest { domain: "orders".to_owned(), version };
    let read = async |version| operator.policies().get_policy(get(version)).await;
    let old = read(6).await.unwrap().into_inner();
    assert_eq!((old.yaml, old.version, &*old.etag), (orders(5), 6, ""));
    assert_eq!(read(0).await.unwrap().into_inner().etag, "25");
    assert_eq!(read(5).await.unwrap_err().code(), Code::NotFound);

    // It applies requests_per_unit: 5 again, now as revision 26.
    let stale = operator.policies().rollback_policy(rollback(6, "24")).await.unwrap_err();
    assert_eq!(stale.code(), Code::Aborted);
    let back = operator.policies().rollback_policy(rollback(6, "25")).await.unwrap().into_inner();
    assert_eq!((back.yaml, back.version, &*back.etag), (orders(5), 26, "26"));
    let asked = request("orders", &[&[("user", "u")]]);
    let mut caller = tollgate.client().await;
    let answers = codes(&mut caller, &asked, 6).await;
    assert_eq!(answers[4..], [Answer::Ok, Answer::OverLimit]);
    let line = tollgate.wait_for_log("rollback_policy");
    assert!(line.contains("requests_per_unit: 24") && line.contains("requests_per_unit: 5"));

    // They outlive a deletion and a restart.
    operator.delete_policy("orders").await;
    drop(tollgate);
    let tollgate = Options::default().data(data.path()).start();
    let operator = Operator::of(&tollgate).await;
    let kept = versions(&operator).await;
    assert_eq!((kept.len(), kept[0].version, kept[0].current), (20, 26, false));
    let back = operator.policies().rollback_policy(rollback(26, "")).await.unwrap();
    assert_eq!(back.into_inner().yaml, orders(5));
}

#[tokio::test]
async fn concurrent_changes_on_two_replicas_lose_no_version() {
    let Some(redis) = RedisServer::start() else { return };
    let start = || Options::default().redis(redis.url()).start();
    let replicas: [Tollgate; 2] = [start(), start()];
    let mut tasks = tokio::task::JoinSet::new();
    for (i, replica) in replicas.iter().enumerate() {
        let operator = Operator::of(replica).await;
        tasks.spawn(async move {
            for n in 0..8 {
                operator.apply(&orders(100 * i + n)).await;
            }
        });
    }
    tasks.join_all().await;
    let operator = Operator::of(&replicas[0]).await;
    operator.apply(&orders(7)).await;
    assert_eq!(versions(&operator).await.len(), 17);
}
