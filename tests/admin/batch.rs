//! Many clients at once: upserts that change nothing, deletes of a whole batch, lists with filters.

use std::collections::BTreeMap;

use tollgate::edge::admin::pb::manage_clients_request::{Action, Delete, List, Upsert};
use tollgate::edge::admin::pb::{Client, ClientName, ManageClientsRequest};
use tonic::Code;

use crate::replica::{World, client, code, name, per_minute};

fn numbered(i: usize) -> Client {
    client(&[("api_key", &format!("{i:04}"))], vec![per_minute(1)])
}

fn named(client: &Client) -> ClientName {
    let Client { domain, entries, .. } = client.clone();
    ClientName { domain, entries, etag: String::new() }
}

#[tokio::test]
async fn upsert_that_changes_nothing_writes_nothing() {
    let world = World::new();
    let replica = world.replica().await;
    let all = |count| (0..count).map(numbered).collect::<Vec<_>>();
    let first = replica.upsert(all(1_000)).await.unwrap();
    assert_eq!((first.revision, first.unchanged), (Some(1), Some(0)));
    world.advance(1);
    let again = replica.upsert(all(1_000)).await.unwrap();
    assert_eq!((again.revision, again.unchanged), (Some(1), Some(1_000)));
    assert_eq!(again.clients, first.clients, "etag and time of the first");
    assert_eq!(world.registry.revision(), 1);

    let mut some = all(3);
    some[1].labels = [("plan".to_owned(), "trial".to_owned())].into();
    for validate_only in [true, false] {
        let action = Some(Action::Upsert(Upsert { clients: some.clone() }));
        let request = ManageClientsRequest { action, validate_only };
        let mixed = replica.clients.clone().manage_clients(request).await.unwrap().into_inner();
        let etags: Vec<&str> = mixed.clients.iter().map(|client| &*client.etag).collect();
        assert_eq!(mixed.unchanged, Some(2));
        assert_eq!(etags, ["1", if validate_only { "" } else { "2" }, "1"]);
    }
    assert_eq!(world.registry.revision(), 2);

    let mut stale = all(2);
    stale[1].etag = "1".to_owned();
    let refused = replica.upsert(stale.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Aborted);
    assert!(refused.message().starts_with("upsert.clients[1].etag: "), "{refused}");
    stale[1] = Client { etag: "7".to_owned(), ..numbered(0) };
    stale[0] = numbered(5);
    let refused = replica.upsert(stale).await.unwrap_err();
    assert!(refused.message().starts_with("upsert.clients[1].etag: "), "unchanged: {refused}");
    assert_eq!(world.registry.revision(), 2);
}

#[tokio::test]
async fn upsert_writes_over_a_change_that_this_replica_has_not_heard_of() {
    let world = World::new();
    let (here, there) = (world.replica().await, world.replica().await);
    here.upsert(vec![numbered(1)]).await.unwrap();
    there.follow().await;
    there.stop_following();
    here.upsert(vec![Client { limits: vec![per_minute(9)], ..numbered(1) }]).await.unwrap();
    let answer = there.upsert(vec![numbered(1)]).await.unwrap();
    assert_eq!((answer.revision, answer.unchanged), (Some(3), Some(0)));
    here.follow().await;
    assert_eq!(here.admitted(&[("api_key", "0001")], 5).await, 1);
}

#[tokio::test]
async fn batch_is_deleted_with_one_revision_or_not_at_all() {
    let world = World::new();
    let replica = world.replica().await;
    replica.upsert((0..1_000).map(numbered).collect()).await.unwrap();
    let delete = |names: Vec<ClientName>| Action::Delete(Delete { client: None, clients: names });
    let all: Vec<ClientName> = (0..1_000).map(|i| named(&numbered(i))).collect();

    let with = |i: usize, name: ClientName| {
        let mut names = all.clone();
        names[i] = name;
        names
    };
    let stale = ClientName { etag: "7".to_owned(), ..all[3].clone() };
    let many = [all.clone(), vec![named(&numbered(1_000))]].concat();
    for (names, code, field) in [
        (with(5, name(&[("api_key", "gone")])), Code::NotFound, "delete.clients[5]: "),
        (with(3, stale), Code::Aborted, "delete.clients[3].etag: "),
        (
            with(7, all[2].clone()),
            Code::InvalidArgument,
            "delete.clients[7]: is the same client as",
        ),
        (many, Code::InvalidArgument, "delete.clients: found 1001, expected 1 to 1000"),
        (vec![], Code::InvalidArgument, "delete.client: is required"),
    ] {
        let refused = replica.manage(delete(names)).await.unwrap_err();
        assert_eq!(refused.code(), code, "{refused}");
        assert!(refused.message().starts_with(field), "{refused}");
        assert_eq!((world.registry.len(), world.registry.revision()), (1_000, 1));
    }
    let (one, rest) = all.split_first().unwrap();
    let whole = Delete { client: Some(one.clone()), clients: rest.to_vec() };
    let answer = replica.manage(Action::Delete(whole)).await.unwrap();
    assert_eq!((answer.revision, answer.clients.len()), (Some(2), 1_000));
    assert_eq!((world.registry.len(), world.registry.revision()), (0, 2));
    assert_eq!(code(&replica.manage(delete(rest.to_vec())).await), Code::NotFound);
}

#[tokio::test]
async fn list_has_what_meets_every_filter_page_by_page() {
    let world = World::new();
    let replica = world.replica().await;
    let labelled = |i: usize| {
        let plan = if i.is_multiple_of(3) { "gold" } else { "trial" };
        let labels = [("plan", plan), ("team", "blue")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        Client { labels: labels.into(), ..numbered(i) }
    };
    for from in [0, 1_000, 2_000] {
        replica.upsert((from..from + 1_000).map(labelled).collect()).await.unwrap();
    }
    replica.upsert(vec![client(&[("user", "0001")], vec![per_minute(1)])]).await.unwrap();
    let values = async |filter: &List| {
        let (mut values, mut page_token) = (Vec::new(), String::new());
        loop {
            let list = List { page_token, ..filter.clone() };
            let page = replica.manage(Action::List(list)).await.unwrap();
            assert!(page.clients.len() <= filter.page_size as usize && page.total.is_none());
            values.extend(page.clients.into_iter().map(|client| client.entries[0].value.clone()));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return values;
            }
        }
    };
    let label = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    };
    let sized = |page_size| List { page_size, ..List::default() };
    for page_size in [7, 100, 1_000] {
        let gold =
            List { labels: label(&[("plan", "gold"), ("team", "blue")]), ..sized(page_size) };
        let expected: Vec<String> = (0..3_000).step_by(3).map(|i| format!("{i:04}")).collect();
        assert_eq!(values(&gold).await, expected, "{page_size}");
        let first_value_prefix = "002".to_owned();
        let both = List { first_value_prefix: first_value_prefix.clone(), ..gold };
        assert_eq!(values(&both).await, ["0021", "0024", "0027"]);
        let prefix = List { first_value_prefix, ..sized(page_size) };
        assert_eq!(values(&prefix).await.len(), 10);
        let users = List { first_key: "user".to_owned(), ..sized(page_size) };
        assert_eq!(values(&users).await, ["0001"]);
        let none = List { labels: label(&[("plan", "gold"), ("team", "red")]), ..sized(page_size) };
        assert_eq!(values(&none).await, Vec::<String>::new());
    }
}
