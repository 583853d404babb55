//! Clients with sensitive values: the forms in which the registry may have them.

use tollgate::control::registry::{Change, Expect, Registry as _};
use tollgate::control::sweep::hide;
use tollgate::edge::admin::pb::manage_clients_request::{Action, Delete, List};
use tollgate::edge::admin::pb::{Client, ClientName};
use tollgate::limits;
use tonic::Code;

use crate::replica::{Replica, World, client, code, name, per_minute};

fn secret(value: &str) -> Client {
    client(&[("secret", value)], vec![per_minute(1)])
}

/// A record of an older build: the value in clear.
async fn in_clear(world: &World, value: &str) {
    let entries = [("secret", value)].into_iter().collect();
    let name = limits::ClientName { domain: "edge".into(), entries };
    let key = name.record_key();
    let record = serde_json::json!({
        "domain": "edge", "entries": [["secret", value]], "updated_at": 1,
        "limits": [{"rate": {"requests_per_unit": 1, "unit": "minute", "unit_multiplier": 1}}],
    });
    let value = Some(record.to_string().into());
    world.registry.write(vec![Change { key, expect: Expect::Anything, value }]).await.unwrap();
}

async fn listed(replica: &Replica, first_value_prefix: &str) -> Vec<ClientName> {
    let first_value_prefix = first_value_prefix.to_owned();
    let list = Action::List(List { first_value_prefix, ..List::default() });
    let clients = replica.manage(list).await.unwrap().clients.into_iter();
    clients
        .map(|Client { domain, entries, etag, .. }| ClientName { domain, entries, etag })
        .collect()
}

fn delete(clients: Vec<ClientName>) -> Action {
    Action::Delete(Delete { client: None, clients })
}

#[tokio::test]
async fn batch_is_deleted_in_the_form_that_the_registry_has() {
    let world = World::new();
    let (here, behind) = (world.replica().await, world.replica().await);
    here.upsert(vec![client(&[("api_key", "a")], vec![per_minute(1)])]).await.unwrap();
    for value in ["a", "b"] {
        in_clear(&world, value).await;
    }
    here.follow().await;
    behind.follow().await;
    behind.stop_following();
    assert_eq!(hide(&here.control).await.unwrap(), 2);
    here.upsert(vec![secret("c")]).await.unwrap();

    let [one, a, b, c] = ["api_key", "secret", "secret", "secret"]
        .into_iter()
        .zip(["a", "a", "b", "c"])
        .map(|(key, value)| name(&[(key, value)]))
        .collect::<Vec<_>>()
        .try_into()
        .unwrap();
    let revision = world.registry.revision();
    let (stale, gone) =
        (ClientName { etag: "2".to_owned(), ..a.clone() }, name(&[("secret", "gone")]));
    for (names, expected, field) in [
        (vec![one.clone(), a.clone(), gone], Code::NotFound, "delete.clients[2]: "),
        (vec![one.clone(), b.clone(), stale], Code::Aborted, "delete.clients[2].etag: "),
    ] {
        let refused = behind.manage(delete(names)).await.unwrap_err();
        assert_eq!(refused.code(), expected, "{refused}");
        assert!(refused.message().starts_with(field), "{refused}");
        assert_eq!((world.registry.len(), world.registry.revision()), (4, revision));
    }
    let answer = behind.manage(delete(vec![one, a, b, c])).await.unwrap();
    assert_eq!((answer.clients.len(), answer.revision), (4, Some(revision + 1)));
    assert_eq!(world.registry.len(), 0);
}

#[tokio::test]
async fn value_and_its_hash_are_the_same_client() {
    let world = World::new();
    let replica = world.replica().await;
    replica.upsert(vec![secret("a")]).await.unwrap();
    let shown = listed(&replica, "").await.remove(0);
    assert!(shown.entries[0].hashed);
    let both = vec![name(&[("secret", "a")]), shown.clone()];
    let refused = replica.manage(delete(both)).await.unwrap_err();
    assert!(refused.message().contains("clients[1]: is the same client as"), "{refused}");
    let by_hash = Client { entries: shown.entries.clone(), ..secret("") };
    let refused = replica.upsert(vec![secret("a"), by_hash.clone()]).await.unwrap_err();
    assert!(refused.message().contains("clients[1]: is the same client as"), "{refused}");
    // No prefix of a value that is not known.
    for prefix in ["a", &shown.entries[0].value] {
        assert_eq!(listed(&replica, prefix).await, []);
    }
    let again = replica.upsert(vec![by_hash]).await.unwrap();
    assert_eq!((again.unchanged, again.revision), (Some(1), Some(1)));
    replica.manage(delete(vec![shown])).await.unwrap();
    assert_eq!(world.registry.len(), 0);
}

#[tokio::test]
async fn upsert_that_changes_the_form_alone_is_a_change() {
    let world = World::new();
    let replica = world.replica().await;
    in_clear(&world, "a").await;
    replica.follow().await;
    for (unchanged, revision) in [(0, 2), (1, 2)] {
        let answer = replica.upsert(vec![secret("a")]).await.unwrap();
        assert_eq!((answer.unchanged, answer.revision), (Some(unchanged), Some(revision)));
        assert!(answer.clients[0].entries[0].hashed);
    }
    assert_eq!(world.registry.len(), 1);
    let answer = replica.manage(delete(vec![name(&[("secret", "a")])])).await;
    assert_eq!(code(&answer), Code::Ok);
    assert_eq!(world.registry.len(), 0);
}
