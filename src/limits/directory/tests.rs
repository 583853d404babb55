use super::*;
use crate::domain::Timestamp;
use crate::limits::Limits;

fn name(domain: &str, value: &str) -> ClientName {
    ClientName { domain: domain.into(), entries: [("key", value)].into_iter().collect() }
}

fn client(domain: &str, value: &str, revision: u64) -> Client {
    Client {
        name: name(domain, value),
        limits: Limits::default(),
        plan: None,
        shadow: None,
        quota: None,
        metadata: None,
        labels: None,
        expires_at: None,
        updated_at: Timestamp::EPOCH,
        revision,
    }
}

#[test]
fn later_call_counts_also_with_a_lower_revision() {
    let directory = Directory::default();
    directory.put(client("d", "a", 5));
    directory.put(client("d", "a", 4));
    assert!(directory.may_have_domain(b"d") && !directory.may_have_domain(b"e"));
    assert_eq!(directory.get(&name("d", "a")).unwrap().revision, 4);
    assert_eq!(directory.len(), 1);
    directory.remove(&name("d", "a"));
    assert!(directory.is_empty() && !directory.has_domain(b"d"));
    assert!(!directory.may_have_domain(b"d"));
}

#[test]
fn client_is_found_by_its_values_and_by_their_hashes() {
    let directory = Directory::default();
    let hash = |value: &[u8]| format!("h({})", String::from_utf8_lossy(value));
    let find = |entries: &[(&str, &str)]| {
        let pairs = entries.iter().map(|(key, value)| (key.as_bytes(), value.as_bytes()));
        directory.find_in_any_form(b"d", &pairs, hash).map(|client| client.revision)
    };
    let hidden = |value: &str, revision| {
        let value = Value { bytes: value.as_bytes(), hashed: true };
        let entries = Entries::of([(&b"key"[..], value)]);
        Client { name: ClientName { domain: "d".into(), entries }, ..client("d", "", revision) }
    };
    directory.put(client("d", "a", 1));
    directory.put(hidden("h(b)", 2));
    assert_eq!((find(&[("key", "a")]), find(&[("key", "b")])), (Some(1), Some(2)));
    // Neither the hash as a value, nor another key or length.
    assert_eq!(find(&[("key", "h(b)")]), None);
    assert_eq!(find(&[("other", "b")]), None);
    assert_eq!(find(&[("key", "b"), ("key", "b")]), None);
    // Of both forms the newer one.
    directory.put(hidden("h(a)", 3));
    assert_eq!(find(&[("key", "a")]), Some(3));
    directory.put(client("d", "a", 4));
    assert_eq!(find(&[("key", "a")]), Some(4));
    for hash in ["h(a)", "h(b)"] {
        directory.remove(&hidden(hash, 0).name);
    }
    assert_eq!((find(&[("key", "a")]), find(&[("key", "b")])), (Some(4), None));
    assert!(directory.hashed.load().is_empty());
}

#[test]
fn pages_go_through_all_in_order() {
    let directory = Directory::default();
    for (i, domain) in ["b", "a", "c"].iter().cycle().take(300).enumerate() {
        directory.put(client(domain, &format!("{i:03}"), 1));
    }
    let mut seen: Vec<ClientName> = Vec::new();
    loop {
        let page = directory.page(None, seen.last(), 7);
        assert_eq!(page.total, 300);
        seen.extend(page.clients.iter().map(|client| client.name.clone()));
        if !page.more {
            break;
        }
    }
    assert_eq!(seen.len(), 300);
    assert!(seen.is_sorted());
    let page = directory.page(Some("b"), None, 1_000);
    assert_eq!((page.clients.len(), page.total, page.more), (100, 100, false));
    assert!(page.clients.iter().all(|client| &*client.name.domain == "b"));
    assert_eq!(directory.page(Some("x"), None, 10).total, 0);
}
