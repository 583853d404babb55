//! The embedded registry and its file: killed while it writes, used twice, absent, not writable, something else.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tollgate::control::registry::embedded::EmbeddedRegistry;
use tollgate::control::registry::{Delta, Mark, Record, Registry, RegistryError};

use super::map::{SOON, follow, key, put, scanned};

const FILE: &str = "REGISTRY_TEST_FILE";
const PROBED: &str = "REGISTRY_TEST_PROBED";
/// The records that every write of the child changes together.
const GROUP: u64 = 7;

fn open(path: &Path) -> EmbeddedRegistry {
    EmbeddedRegistry::new(path, 50)
}

/// Waits until nobody holds the file: a process that another test has just forked holds all that was open here until it
/// executes its program.
fn let_go(path: &Path) {
    let Ok(file) = File::open(path) else { return };
    let start = Instant::now();
    while file.try_lock().is_err() {
        assert!(start.elapsed() < Duration::from_secs(10), "{} stays locked", path.display());
        std::thread::yield_now();
    }
    file.unlock().unwrap();
}

/// The child of the test below: writes until it is killed, and says what was acknowledged.
#[tokio::test]
async fn child_that_writes() {
    let Some(path) = std::env::var_os(FILE) else { return };
    let registry = open(Path::new(&path));
    loop {
        let next = registry.newest().await.unwrap().revision + 1;
        let group = (0..GROUP).map(|i| put(format!("group{i}"), next.to_string()));
        let own = put(format!("own{next}"), next.to_string());
        let written = registry.write(group.chain([own]).collect()).await.unwrap();
        assert_eq!(written.mark.revision, next);
        println!("acknowledged {next}");
    }
}

#[tokio::test]
async fn kill_at_any_point_loses_nothing_acknowledged_and_halves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("deep/down/registry.redb");
    let mut acknowledged = 0;
    for round in 0..12 {
        let_go(&path);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "file::child_that_writes", "--nocapture"])
            .env(FILE, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // After another number of writes each time; the first round kills before or at the first.
        let mut left = round * 3;
        let mut note = |line: &str| {
            if let Some((_, revision)) = line.split_once("acknowledged ") {
                acknowledged = revision.trim().parse().unwrap();
                left -= 1;
            }
            left <= 0
        };
        while !note(&lines.next().unwrap().unwrap()) {}
        child.kill().unwrap();
        child.wait().unwrap();
        for line in lines {
            note(&line.unwrap());
        }
        let_go(&path);
        let (records, revision) = scanned(&open(&path)).await;
        // At most the one write that was under way is there without having been acknowledged.
        assert!((acknowledged..=acknowledged + 1).contains(&revision), "{revision}");
        for i in (0..GROUP).filter(|_| revision > 0) {
            let record = &records[format!("group{i}").as_bytes()];
            assert_eq!(
                (record.value.as_ref(), record.revision),
                (revision.to_string().as_bytes(), revision)
            );
        }
        for own in 1..=revision {
            assert_eq!(records[format!("own{own}").as_bytes()].revision, own);
        }
    }
    assert!(acknowledged > 100, "{acknowledged}");
}

#[tokio::test]
async fn restored_file_does_not_have_the_marks_of_what_it_lost() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("registry.redb");
    let backup = directory.path().join("backup");
    let first = open(&path).write(vec![put("a", "1")]).await.unwrap().mark;
    let_go(&path);
    std::fs::copy(&path, &backup).unwrap();
    let lost = open(&path).write(vec![put("a", "lost")]).await.unwrap().mark;
    let_go(&path);
    std::fs::copy(&backup, &path).unwrap();
    let registry = open(&path);
    assert_eq!(registry.since(lost).await.unwrap(), Delta::TooOld);
    let written = registry.write(vec![put("b", "2")]).await.unwrap();
    assert_eq!((written.mark.revision, written.previous), (lost.revision, first));
    assert_eq!(registry.since(lost).await.unwrap(), Delta::TooOld);
    let entries = vec![(key("b"), Some(Record { value: key("2"), revision: 2 }))];
    let expected = Delta::Changes { mark: written.mark, entries };
    assert_eq!(registry.since(first).await.unwrap(), expected);
}

#[tokio::test]
async fn file_of_a_build_without_tags_is_followed_and_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("registry.redb");
    for value in ["1", "2"] {
        open(&path).write(vec![put("a", value)]).await.unwrap();
        let_go(&path);
    }
    let database = redb::Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    let tags = redb::TableDefinition::<u64, u64>::new("tags");
    assert!(transaction.delete_table(tags).unwrap());
    transaction.commit().unwrap();
    drop(database);
    let_go(&path);
    let registry = Arc::new(open(&path));
    let following = follow(&registry, SOON);
    following.follower.synced().await;
    assert_eq!(registry.newest().await.unwrap(), Mark { revision: 2, tag: 0 });
    let third = vec![put("b", "3")];
    let written = registry.write(third.clone()).await.unwrap();
    assert_eq!(written.previous, Mark { revision: 2, tag: 0 });
    assert!(following.follower.applied(&written, &third, SOON).await);
    for revision in 0..2 {
        let since = registry.since(Mark { revision, tag: 0 }).await.unwrap();
        let Delta::Changes { mark, entries } = since else { panic!("too old: {revision}") };
        assert_eq!((mark, entries.len() as u64), (written.mark, 3 - revision));
    }
    assert_eq!(following.map.records(), scanned(&*registry).await.0);
}

#[tokio::test]
async fn second_user_of_a_file_is_told_so() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("registry.redb");
    let first = open(&path);
    first.write(vec![put("a", "1")]).await.unwrap();
    let second = open(&path);
    for refused in [second.write(vec![put("a", "2")]).await.err(), second.read(b"a").await.err()] {
        let Some(RegistryError::Unavailable(reason)) = refused else { panic!("{refused:?}") };
        assert!(reason.ends_with("registry.redb is in use by another process"), "{reason}");
    }
    drop(first);
    let_go(&path);
    assert_eq!(second.write(vec![put("a", "2")]).await.unwrap().mark.revision, 2);
    // Only the file itself is left.
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn reading_makes_no_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("absent/registry.redb");
    let registry = open(&path);
    assert_eq!(scanned(&registry).await.1, 0);
    assert_eq!(registry.read(b"a").await.unwrap(), None);
    assert!(!directory.path().join("absent").exists());
}

#[tokio::test]
async fn place_that_cannot_be_written_fails_writes_alone() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("occupied"), "").unwrap();
    // A directory that is a file: refused to root too.
    let registry = open(&directory.path().join("occupied/registry.redb"));
    assert_eq!(scanned(&registry).await.1, 0);
    let refused = registry.write(vec![put("a", "1")]).await;
    assert!(matches!(refused, Err(RegistryError::Unavailable(_))), "{refused:?}");
    let probed = registry.probe().await;
    assert!(matches!(probed, Err(RegistryError::Unavailable(_))), "{probed:?}");
    // It leaves nothing behind where it may write.
    open(&directory.path().join("absent/registry.redb")).probe().await.unwrap();
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
}

/// The child of the test below.
#[tokio::test]
async fn child_that_probes() {
    let Some(path) = std::env::var_os(PROBED) else { return };
    drop(open(Path::new(&path)).probe().await);
}

#[test]
fn probe_that_is_killed_while_it_writes_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    // The first byte of a file ends the process with SIGXFSZ.
    let mut child = Command::new("bash");
    child.args(["-c", r#"ulimit -f 0; exec "$0" "$@""#]).arg(std::env::current_exe().unwrap());
    child.args(["--exact", "file::child_that_probes"]);
    child.env(PROBED, directory.path().join("registry.redb")).stdout(Stdio::null());
    let status = child.status().unwrap();
    assert!(status.signal().is_some(), "not killed: {status}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn file_of_something_else_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("registry.redb");
    std::fs::write(&path, "some other text, certainly longer than any header").unwrap();
    let registry = open(&path);
    let written = registry.write(vec![put("a", "2")]).await.err();
    let_go(&path);
    for refused in [written, registry.newest().await.err()] {
        let Some(RegistryError::Corrupt(reason)) = refused else { panic!("{refused:?}") };
        assert!(reason.contains("registry.redb is no registry: restore it"), "{reason}");
    }
    assert!(std::fs::read_to_string(&path).unwrap().starts_with("some other text"));
}

/// Overwrites everything behind the header of the file, where the database panics.
fn damage(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[4_096..].fill(0xa5);
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn damaged_file_is_named_and_left_alone_until_it_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("registry.redb");
    open(&path).write((0..500).map(|i| put(format!("k{i}"), "v")).collect()).await.unwrap();
    let_go(&path);
    let backup = directory.path().join("backup");
    std::fs::copy(&path, &backup).unwrap();
    damage(&path);
    let registry = open(&path);
    let refused = [
        registry.scan(|_| {}).await.err(),
        registry.newest().await.err(),
        registry.write(vec![put("a", "2")]).await.err(),
        registry.read(b"k1").await.err(),
    ];
    for refused in refused {
        let Some(RegistryError::Corrupt(reason)) = refused else { panic!("{refused:?}") };
        assert!(reason.contains(path.to_str().unwrap()), "{reason}");
        assert!(reason.contains("is damaged") && reason.contains("restore it"), "{reason}");
    }
    // At once, without a wait.
    std::fs::rename(&backup, &path).unwrap();
    assert_eq!(scanned(&registry).await.0.len(), 500);
    assert_eq!(registry.write(vec![put("a", "2")]).await.unwrap().mark.revision, 2);
}
