//! What every registry does, run against each form.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tollgate::control::registry::{
    Change, Delta, Expect, Mark, Record, Registry, RegistryError, Update,
};
use tollgate::domain::{Clock as _, WallClock};

use super::map::{Records, delete, follow, key, put, redis_registry, scanned};

/// Each test with the number of changes that the log of its registry keeps.
macro_rules! suite {
    ($($name:ident: $log:literal),* $(,)?) => {
        mod redis {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let Some(server) = crate::redis_server::RedisServer::start() else { return };
                super::$name(super::redis_registry(&server, $log)).await;
            })*
        }
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let directory = tempfile::tempdir().unwrap();
                let path = directory.path().join("data/registry.redb");
                let registry = tollgate::control::registry::embedded::EmbeddedRegistry::new(path, $log);
                super::$name(std::sync::Arc::new(registry)).await;
            })*
        }
    };
}

suite! {
    empty_registry_has_revision_zero: 100,
    write_is_all_or_nothing: 100,
    what_is_expected_must_be_there: 100,
    one_of_two_that_expect_nothing_is_first: 100,
    probe_changes_nothing: 100,
    clock_of_the_registry_decides_what_has_expired: 100,
    one_of_sixteen_writers_wins_each_race: 1_000,
    revisions_count_up_by_one_and_befores_are_told: 100,
    mark_of_another_history_is_too_old: 100,
    log_reaches_back_to_its_edge: 10,
    thousand_changes_are_one_write: 5_000,
    bytes_are_kept_as_they_are: 100,
    more_than_a_page_of_changes_is_told_in_whole_writes: 20_000,
    scan_and_since_converge_while_others_write: 100_000,
    follower_converges_while_others_write: 300,
    hundred_thousand_records_are_loaded: 20_000,
}

fn change(name: &str, expect: Expect, value: Option<&str>) -> Change {
    Change { key: key(name), expect, value: value.map(key) }
}

fn record(value: &str, revision: u64) -> Record {
    Record { value: key(value), revision }
}

/// Before the first write.
const START: Mark = Mark { revision: 0, tag: 0 };

async fn changes(registry: &impl Registry, since: Mark) -> (Mark, Vec<Update>) {
    match registry.since(since).await.unwrap() {
        Delta::Changes { mark, entries } => (mark, entries),
        Delta::TooOld => panic!("too old: {since:?}"),
    }
}

async fn empty_registry_has_revision_zero(registry: Arc<impl Registry>) {
    assert_eq!(registry.read(b"a").await.unwrap(), None);
    assert_eq!(scanned(&*registry).await, (Records::new(), 0));
    assert_eq!(changes(&*registry, START).await, (START, vec![]));
    assert_eq!(registry.since(Mark { revision: 7, tag: 7 }).await.unwrap(), Delta::TooOld);
    assert_eq!(registry.newest().await.unwrap(), START);
    let nothing = registry.write(vec![]).await.unwrap();
    assert_eq!((nothing.mark, nothing.previous), (START, START));
    let absent = change("a", Expect::Present, Some("x"));
    assert!(matches!(
        registry.write(vec![absent]).await,
        Err(RegistryError::Conflict { index: 0, expected: Expect::Present, found: None })
    ));
    assert_eq!(registry.write(vec![delete("a")]).await.unwrap().mark.revision, 1);
}

async fn write_is_all_or_nothing(registry: Arc<impl Registry>) {
    let first = registry.write(vec![put("a", "1"), put("b", "1")]).await.unwrap();
    let last_fails = vec![
        put("a", "2"),
        put("new", "2"),
        delete("b"),
        change("b2", Expect::Revision(1), Some("2")),
    ];
    let refused = registry.write(last_fails).await.unwrap_err();
    assert_eq!(
        refused,
        RegistryError::Conflict { index: 3, expected: Expect::Revision(1), found: None }
    );
    let (records, revision) = scanned(&*registry).await;
    assert_eq!(revision, 1);
    assert_eq!(records, [(key("a"), record("1", 1)), (key("b"), record("1", 1))].into());
    assert_eq!(changes(&*registry, first.mark).await, (first.mark, vec![]));
}

async fn what_is_expected_must_be_there(registry: Arc<impl Registry>) {
    registry.write(vec![put("a", "1")]).await.unwrap();
    for (expect, name, found) in [
        (Expect::Present, "b", None),
        (Expect::Revision(1), "b", None),
        (Expect::Revision(2), "a", Some(1)),
        (Expect::Revision(0), "a", Some(1)),
        (Expect::Revision(0), "b", None),
        (Expect::Revision(u64::MAX), "a", Some(1)),
    ] {
        let refused = registry.write(vec![change(name, expect, None)]).await.unwrap_err();
        assert_eq!(refused, RegistryError::Conflict { index: 0, expected: expect, found });
    }
    registry.write(vec![change("a", Expect::Revision(1), Some("2"))]).await.unwrap();
    registry.write(vec![change("a", Expect::Present, Some("3"))]).await.unwrap();
    registry.write(vec![change("a", Expect::Revision(3), None)]).await.unwrap();
    assert_eq!(registry.read(b"a").await.unwrap(), None);
}

async fn one_of_two_that_expect_nothing_is_first(registry: Arc<impl Registry>) {
    let first = vec![change("a", Expect::Absent, Some("1"))];
    assert_eq!(registry.write(first.clone()).await.unwrap().mark.revision, 1);
    let refused = registry.write(first.clone()).await.unwrap_err();
    let expected = Expect::Absent;
    assert_eq!(refused, RegistryError::Conflict { index: 0, expected, found: Some(1) });
    registry.write(vec![delete("a")]).await.unwrap();
    assert_eq!(registry.write(first).await.unwrap().mark.revision, 3);
}

async fn probe_changes_nothing(registry: Arc<impl Registry>) {
    registry.probe().await.unwrap();
    assert_eq!(scanned(&*registry).await, (Records::new(), 0));
    registry.write(vec![put("a", "1")]).await.unwrap();
    let before = (scanned(&*registry).await, registry.newest().await.unwrap());
    registry.probe().await.unwrap();
    assert_eq!((scanned(&*registry).await, registry.newest().await.unwrap()), before);
}

async fn clock_of_the_registry_decides_what_has_expired(registry: Arc<impl Registry>) {
    let wall = WallClock.now().as_micros();
    let now = registry.now().await.unwrap().as_micros();
    assert!(now.abs_diff(wall) < 5_000_000, "one machine: {now} and {wall}");
    let minute = 60_000_000;
    let at = |at: u64| format!(r#"{{"limits":[{{"unlimited":true}}],"expires_at":{at},"n":1}}"#);
    let stay = [
        at(now + minute),
        at(u64::MAX),
        r#"{"limits":[]}"#.to_owned(),
        r#"{"expires_at":null}"#.to_owned(),
        r#"{"expires_at":"1"}"#.to_owned(),
        r#"{"metadata":{"expires_at":1}}"#.to_owned(),
        "[1]".to_owned(),
        "1".to_owned(),
        String::new(),
        r#"{"expires_at":1"#.to_owned(),
    ];
    let expired = |name: &str| change(name, Expect::Expired, None);
    for value in stay {
        let put = vec![put("gone", at(now)), put("stays", &value)];
        let revision = registry.write(put).await.unwrap().mark.revision;
        // With one that has not expired none is deleted.
        let refused = registry.write(vec![expired("gone"), expired("stays")]).await.unwrap_err();
        let found = Some(revision);
        let expected = Expect::Expired;
        assert_eq!(refused, RegistryError::Conflict { index: 1, expected, found }, "{value}");
        assert_eq!(scanned(&*registry).await.0.len(), 2, "{value}");
    }
    let refused = registry.write(vec![expired("absent")]).await.unwrap_err();
    let expected = Expect::Expired;
    assert_eq!(refused, RegistryError::Conflict { index: 0, expected, found: None });
    for past in [1, now - minute, now] {
        registry.write(vec![put("gone", at(past))]).await.unwrap();
        let written = registry.write(vec![expired("gone")]).await.unwrap();
        assert_eq!(written.before[0].as_ref().unwrap().value, at(past));
        assert_eq!(registry.read(b"gone").await.unwrap(), None);
    }
}

async fn one_of_sixteen_writers_wins_each_race(registry: Arc<impl Registry>) {
    registry.write(vec![put("a", "")]).await.unwrap();
    for round in 1..=20 {
        let mut writers = JoinSet::new();
        for writer in 0..16 {
            let registry = Arc::clone(&registry);
            writers.spawn(async move {
                let name = writer.to_string();
                let changes =
                    vec![change("a", Expect::Revision(round), Some(&name)), put(&name, "won")];
                registry.write(changes).await.map(|written| (writer, written.mark.revision))
            });
        }
        let (won, lost): (Vec<_>, Vec<_>) =
            writers.join_all().await.into_iter().partition(Result::is_ok);
        let [Ok((winner, revision))] = won[..] else { panic!("{won:?}") };
        assert_eq!(revision, round + 1);
        assert_eq!(lost.len(), 15);
        assert!(lost.iter().all(|lost| matches!(lost, Err(RegistryError::Conflict { .. }))));
        let there = registry.read(b"a").await.unwrap();
        assert_eq!(there, Some(record(&winner.to_string(), round + 1)));
    }
}

async fn revisions_count_up_by_one_and_befores_are_told(registry: Arc<impl Registry>) {
    let first = registry.write(vec![put("a", "1"), delete("b")]).await.unwrap();
    assert_eq!((first.mark.revision, first.before), (1, vec![None, None]));
    let second = registry.write(vec![put("b", "2"), put("a", "2"), delete("c")]).await.unwrap();
    assert_eq!((second.mark.revision, second.before), (2, vec![None, Some(record("1", 1)), None]));
    let third = registry.write(vec![delete("a"), delete("b")]).await.unwrap();
    assert_eq!(third.mark.revision, 3);
    assert_eq!(third.before, vec![Some(record("2", 2)), Some(record("2", 2))]);
    assert_eq!([first.previous, second.previous, third.previous], [START, first.mark, second.mark]);
    assert_eq!(registry.newest().await.unwrap(), third.mark);
    let told = changes(&*registry, first.mark).await;
    let expected = vec![
        (key("b"), Some(record("2", 2))),
        (key("a"), Some(record("2", 2))),
        (key("c"), None),
        (key("a"), None),
        (key("b"), None),
    ];
    assert_eq!(told, (third.mark, expected));
}

/// What a follower of writes that the registry lost asks for.
async fn mark_of_another_history_is_too_old(registry: Arc<impl Registry>) {
    let mut marks = Vec::new();
    for round in 1..=5 {
        marks.push(registry.write(vec![put("a", round.to_string())]).await.unwrap().mark);
    }
    for mark in &marks {
        let others = marks.iter().filter(|other| *other != mark);
        for tag in others.map(|other| other.tag).chain([0, mark.tag.wrapping_add(1)]) {
            let other = registry.since(Mark { tag, ..*mark }).await.unwrap();
            assert_eq!(other, Delta::TooOld, "{mark:?} as {tag}");
        }
        assert_eq!(changes(&*registry, *mark).await.0, marks[4]);
    }
}

async fn log_reaches_back_to_its_edge(registry: Arc<impl Registry>) {
    let mut marks = vec![START];
    for round in 1..=30 {
        marks.push(registry.write(vec![put("a", round.to_string())]).await.unwrap().mark);
        for since in &marks {
            let kept = round - since.revision;
            match registry.since(*since).await.unwrap() {
                Delta::Changes { mark, entries } => {
                    assert_eq!((mark.revision, entries.len() as u64), (round, kept));
                    let revisions = entries.iter().map(|entry| entry.1.as_ref().unwrap().revision);
                    assert!(revisions.eq(since.revision + 1..=round));
                }
                Delta::TooOld => assert!(kept > 10, "{kept} of {round}"),
            }
        }
        let next = Mark { revision: round + 1, tag: 0 };
        assert_eq!(registry.since(next).await.unwrap(), Delta::TooOld);
        let beyond = registry.since(marks[round.saturating_sub(11) as usize]).await.unwrap();
        assert!(round < 12 || beyond == Delta::TooOld, "{round}");
    }
    // A write that the log cannot hold: what came before it is out of reach, what comes after it is not.
    let many = (0..25).map(|i| put(i.to_string(), "")).collect();
    let many = registry.write(many).await.unwrap().mark;
    assert_eq!(many.revision, 31);
    assert_eq!(changes(&*registry, many).await, (many, vec![]));
    assert_eq!(registry.since(marks[29]).await.unwrap(), Delta::TooOld);
    let last = registry.write(vec![delete("a")]).await.unwrap().mark;
    assert_eq!(changes(&*registry, many).await, (last, vec![(key("a"), None)]));
}

async fn thousand_changes_are_one_write(registry: Arc<impl Registry>) {
    let thousand = |value: &'static str| -> Vec<_> {
        (0..1_000).map(|i| put(format!("{i:04}"), value)).collect()
    };
    let first = registry.write(thousand("1")).await.unwrap();
    let start = Instant::now();
    let second = registry.write(thousand("2")).await.unwrap();
    println!("1 000 changes in {:?}", start.elapsed());
    assert_eq!(second.mark.revision, 2);
    assert_eq!(second.before, vec![Some(record("1", 1)); 1_000]);
    let (mark, entries) = changes(&*registry, first.mark).await;
    assert_eq!((mark, entries.len()), (second.mark, 1_000));
    assert!(entries.iter().map(|entry| &entry.0).is_sorted());
    assert_eq!(scanned(&*registry).await.0.len(), 1_000);
}

async fn bytes_are_kept_as_they_are(registry: Arc<impl Registry>) {
    let all: Vec<u8> = (0..=255).collect();
    let large = vec![0_u8; 1 << 20];
    let values: [&[u8]; 6] = [b"", b"-", b"=", b"\r\n$1\r\n", &all, &large];
    let names: [&[u8]; 6] = [b"", b"\0", b"+", b"k", &all, &[0xff; 2_000]];
    let write = names.iter().zip(values).map(|(name, value)| put(name, value)).collect();
    registry.write(write).await.unwrap();
    let (records, _) = scanned(&*registry).await;
    let (_, entries) = changes(&*registry, START).await;
    for (i, (name, value)) in names.iter().zip(values).enumerate() {
        let expected = Some(Record { value: key(value), revision: 1 });
        assert_eq!(registry.read(name).await.unwrap(), expected);
        assert_eq!(records.get(*name), expected.as_ref());
        assert_eq!(entries[i], (key(name), expected));
    }
}

async fn more_than_a_page_of_changes_is_told_in_whole_writes(registry: Arc<impl Registry>) {
    let mut marks = Vec::new();
    for size in [1, 6_000, 1_000, 1_000, 1_000, 1_000, 1_000, 1_000, 1_000] {
        let write = (0..size).map(|i| put(i.to_string(), size.to_string())).collect();
        marks.push(registry.write(write).await.unwrap().mark);
    }
    let told = async |from: Mark| {
        let (mut at, mut sizes) = (from, Vec::new());
        while at != marks[8] {
            let (mark, entries) = changes(&*registry, at).await;
            assert!(mark.revision > at.revision);
            sizes.push(entries.len());
            at = mark;
        }
        sizes
    };
    let sizes = told(marks[0]).await;
    assert!(sizes[0] >= 6_000 && sizes.iter().sum::<usize>() == 13_000, "{sizes:?}");
    let sizes = told(marks[1]).await;
    assert!(sizes.len() > 1 && sizes.iter().sum::<usize>() == 7_000, "{sizes:?}");
    assert!(sizes.iter().all(|size| size % 1_000 == 0), "{sizes:?}");
}

/// Writes, deletes and rewrites few keys until `stop`, once at least.
async fn scribble(registry: Arc<impl Registry>, writer: u64, stop: Arc<AtomicBool>) -> u64 {
    let mut writes = 0;
    loop {
        writes += 1;
        let name = |i: u64| format!("{}", (writes * 7 + i * 31 + writer) % 500);
        let first =
            if writes % 3 == 0 { delete(name(0)) } else { put(name(0), format!("{writes}")) };
        let mut write = vec![first];
        if name(1) != name(0) {
            write.push(put(name(1), format!("{writer}/{writes}")));
        }
        registry.write(write).await.unwrap();
        if stop.load(Ordering::Relaxed) {
            return writes;
        }
    }
}

async fn scan_and_since_converge_while_others_write(registry: Arc<impl Registry>) {
    for block in 0..5 {
        let write = (0..1_000).map(|i| put(format!("{}", block * 1_000 + i), "old")).collect();
        registry.write(write).await.unwrap();
    }
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    for writer in 0..4 {
        writers.spawn(scribble(Arc::clone(&registry), writer, Arc::clone(&stop)));
    }
    let (mut records, mut at) = (Records::new(), START);
    // The first scans may be over before the first write.
    while at.revision <= 5 {
        at = registry.newest().await.unwrap();
        records = scanned(&*registry).await.0;
    }
    stop.store(true, Ordering::Relaxed);
    let writes: u64 = writers.join_all().await.into_iter().sum();
    loop {
        let (mark, entries) = changes(&*registry, at).await;
        for (key, record) in entries {
            match record {
                Some(record) => records.insert(key, record),
                None => records.remove(&key),
            };
        }
        if mark == at {
            break;
        }
        at = mark;
    }
    assert_eq!((records, at.revision), scanned(&*registry).await);
    assert_eq!(at.revision, 5 + writes);
}

async fn follower_converges_while_others_write(registry: Arc<impl Registry>) {
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    for writer in 0..4 {
        writers.spawn(scribble(Arc::clone(&registry), writer, Arc::clone(&stop)));
    }
    let mut following = Vec::new();
    let start = Instant::now();
    let mut own = 0;
    // Followers start at all times, with a log that is too short now and then, and writers that apply their own writes.
    while start.elapsed() < Duration::from_millis(1_500) {
        let one = follow(&registry, Duration::from_secs(1));
        one.follower.synced().await;
        let write = vec![put("own", own.to_string())];
        let written = registry.write(write.clone()).await.unwrap();
        let patience = Duration::from_secs(5);
        assert!(one.follower.applied(&written, &write, patience).await);
        assert!(one.map.get(b"own").unwrap().revision >= written.mark.revision);
        own += 1;
        following.push(one);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    stop.store(true, Ordering::Relaxed);
    writers.join_all().await;
    let (records, revision) = scanned(&*registry).await;
    for one in following {
        assert!(one.follower.caught_up(revision, Duration::from_secs(5)).await);
        assert_eq!(one.follower.progress().revision, revision);
        assert_eq!(one.map.records(), records);
    }
}

async fn hundred_thousand_records_are_loaded(registry: Arc<impl Registry>) {
    let start = Instant::now();
    for block in 0..100 {
        let name = |i: u32| format!("client/some-domain/client_id={:06}", block * 1_000 + i);
        let write = (0..1_000).map(|i| put(name(i), [b'v'; 200])).collect();
        registry.write(write).await.unwrap();
    }
    println!("100 000 records written in {:?}", start.elapsed());
    let start = Instant::now();
    let following = follow(&registry, Duration::from_secs(1));
    assert_eq!(following.follower.synced().await.revision, 100);
    let took = start.elapsed();
    println!("100 000 records loaded in {took:?}");
    assert_eq!(following.map.len(), 100_000);
    // A tenth of the half minute that a million may take.
    assert!(took < Duration::from_secs(3), "{took:?}");
}
