//! Lists without a registry: never an empty answer for records that were not read, and a warning on
//! what is old.

use tollgate::edge::admin::pb::manage_clients_request::{Action, List};
use tollgate::edge::admin::pb::{ListPoliciesRequest, ListPoliciesResponse, ManageClientsResponse};
use tonic::{Code, Status};

use crate::support::operator::{Operator, daily};
use crate::support::redis::{RedisServer, free_port, is_installed};
use crate::support::tollgate::{Options, Tollgate};

async fn clients(operator: &Operator) -> Result<ManageClientsResponse, Status> {
    operator.manage(Action::List(List::default())).await
}

async fn policies(operator: &Operator) -> Result<ListPoliciesResponse, Status> {
    let listed = operator.policies().list_policies(ListPoliciesRequest {}).await;
    listed.map(tonic::Response::into_inner)
}

/// Both lists are refused, with this reason.
async fn are_refused(operator: &Operator, reason: &str) {
    for refused in [clients(operator).await.err(), policies(operator).await.err()] {
        let refused = refused.expect("no list of what was never read");
        assert_eq!(refused.code(), Code::Unavailable);
        let message = refused.message();
        assert!(message.contains("never read") && message.contains(reason), "{message}");
    }
}

/// Returns the warnings of both lists.
async fn warnings(operator: &Operator) -> Vec<String> {
    let mut warnings = clients(operator).await.unwrap().warnings;
    warnings.extend(policies(operator).await.unwrap().warnings);
    warnings
}

fn wait_until(tollgate: &Tollgate, up: f64) {
    tollgate.wait_for("registry_up", || tollgate.metric("tollgate_registry_up") == Some(up));
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_refused_until_redis_was_read_and_marked_while_it_is_away() {
    if !is_installed() {
        return;
    }
    let port = free_port();
    let tollgate = Options::default().redis(format!("redis://127.0.0.1:{port}")).start();
    let operator = Operator::of(&tollgate).await;
    are_refused(&operator, "Connection refused").await;

    let mut redis = RedisServer::on_port(port, &[]);
    wait_until(&tollgate, 1.0);
    operator.upsert(daily("acme", 5)).await.unwrap();
    assert_eq!(warnings(&operator).await, [""; 0]);

    redis.stop();
    wait_until(&tollgate, 0.0);
    let listed = clients(&operator).await.unwrap();
    assert_eq!(listed.clients.len(), 1, "what was read stays");
    let stale = warnings(&operator).await;
    assert_eq!(stale.len(), 2, "{stale:?}");
    assert!(stale.iter().all(|text| text.starts_with("as of 2")), "{stale:?}");

    redis.restart();
    wait_until(&tollgate, 1.0);
    assert_eq!(warnings(&operator).await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn frozen_redis_makes_a_list_stale_before_a_call_fails() {
    let Some(redis) = RedisServer::start() else { return };
    let tollgate = Options::default().redis(redis.url()).start();
    let operator = Operator::of(&tollgate).await;
    operator.upsert(daily("acme", 5)).await.unwrap();
    redis.pause();
    let late = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while warnings(&operator).await.is_empty() {
        assert!(std::time::Instant::now() < late, "no warning");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    redis.resume();
}

#[tokio::test]
async fn lists_are_refused_while_the_file_belongs_to_another_process_or_is_damaged() {
    let data = tempfile::tempdir().unwrap();
    let owner = Options::default().data(data.path()).start();
    Operator::of(&owner).await.upsert(daily("acme", 5)).await.unwrap();
    let second = Options::default().data(data.path()).start();
    are_refused(&Operator::of(&second).await, "in use by another process").await;
    drop((owner, second));

    std::fs::write(data.path().join("registry.redb"), vec![0xa5; 65_536]).unwrap();
    let third = Options::default().data(data.path()).start();
    are_refused(&Operator::of(&third).await, "restore it from a backup").await;
}
