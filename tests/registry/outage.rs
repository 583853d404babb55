//! The Redis registry without Redis: not there yet, silent, restarted under writers, closed to us.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tollgate::control::follower::DEFAULT_POLL;
use tollgate::control::registry::redis::RedisRegistry;
use tollgate::control::registry::{Registry, RegistryError};
use tollgate::redis::RedisSettings;

use super::map::{SOON, delete, follow, put, redis_registry, scanned, until};
use super::redis_server::{RedisServer, free_port};

#[tokio::test]
async fn starts_without_redis_and_follows_once_it_is_there() {
    let Some(probe) = RedisServer::start() else { return };
    drop(probe);
    let port = free_port();
    let settings = RedisSettings {
        key_prefix: "test:".into(),
        ..RedisSettings::new(format!("redis://127.0.0.1:{port}")).unwrap()
    };
    let registry = Arc::new(RedisRegistry::connect(&settings).unwrap());
    let following = follow(&registry, DEFAULT_POLL);
    assert!(following.follower.tried(SOON).await);
    let tried = following.follower.progress();
    assert!(tried.tried && !tried.synced && !tried.reached, "{tried:?}");
    let refused = registry.write(vec![put("a", "1")]).await;
    let Err(RegistryError::Unavailable(reason)) = refused else { panic!("{refused:?}") };
    assert!(reason.contains("refused"), "{reason}");
    let _server = RedisServer::on_port(port, &[]);
    let progress = tokio::time::timeout(SOON, following.follower.synced()).await.unwrap();
    assert!(progress.synced);
    until("reached", SOON, || following.follower.progress().reached).await;
}

#[tokio::test]
async fn silent_redis_is_given_up_and_what_is_known_stays() {
    let Some(server) = RedisServer::start() else { return };
    let mut settings =
        RedisSettings { key_prefix: "test:".into(), ..RedisSettings::new(server.url()).unwrap() };
    settings.response_timeout = Duration::from_millis(100);
    settings.connect_timeout = Duration::from_millis(100);
    let registry = Arc::new(RedisRegistry::connect(&settings).unwrap());
    registry.write(vec![put("a", "1")]).await.unwrap();
    let following = follow(&registry, Duration::from_millis(50));
    until("the record", SOON, || following.map.len() == 1).await;
    server.pause();
    let start = Instant::now();
    let refused = registry.read(b"a").await;
    assert!(matches!(refused, Err(RegistryError::Unavailable(_))), "{refused:?}");
    assert!(start.elapsed() < Duration::from_secs(1));
    until("the outage", SOON, || !following.follower.progress().reached).await;
    assert_eq!(following.map.len(), 1);
    server.resume();
    until("the end of it", SOON, || following.follower.progress().reached).await;
    registry.write(vec![put("b", "1")]).await.unwrap();
    until("the next change", SOON, || following.map.len() == 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_lose_no_acknowledged_write() {
    let arguments = ["--appendonly", "yes", "--appendfsync", "always"];
    let Some(mut server) = RedisServer::start_with(&arguments) else { return };
    let (one, two) = (redis_registry(&server, 500), redis_registry(&server, 500));
    let following = [&one, &two].map(|registry| follow(registry, DEFAULT_POLL));
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    for (writer, registry) in [&one, &two, &one, &two].into_iter().enumerate() {
        let (registry, stop) = (Arc::clone(registry), Arc::clone(&stop));
        writers.spawn(async move {
            let mut acknowledged = Vec::new();
            for round in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let name = |half| format!("{writer}/{round}/{half}");
                match registry.write(vec![put(name(1), ""), put(name(2), "")]).await {
                    Ok(written) => acknowledged.push((name(1), written.mark.revision)),
                    Err(RegistryError::Unavailable(_) | RegistryError::Unknown(_)) => {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    Err(other) => panic!("{other}"),
                }
            }
            acknowledged
        });
    }
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        tokio::task::block_in_place(|| server.restart());
    }
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    stop.store(true, Ordering::Relaxed);
    let acknowledged: Vec<_> = writers.join_all().await.into_iter().flatten().collect();
    println!("{} writes acknowledged over three restarts", acknowledged.len());
    assert!(acknowledged.len() > 100);
    let (records, revision) = scanned(&*one).await;
    for (name, of_write) in &acknowledged {
        assert_eq!(records.get(name.as_bytes()).map(|record| record.revision), Some(*of_write));
    }
    // Nothing is half there either.
    for (name, record) in &records {
        let mut other = name.to_vec();
        let half = other.last_mut().unwrap();
        *half = if *half == b'1' { b'2' } else { b'1' };
        assert_eq!(records.get(&other[..]).map(|other| other.revision), Some(record.revision));
    }
    for following in following {
        assert!(following.follower.caught_up(revision, SOON).await);
        assert_eq!(following.map.records(), records);
    }
}

#[tokio::test]
async fn redis_without_memory_does_all_of_a_write_or_nothing() {
    let Some(server) = RedisServer::start() else { return };
    let registry = redis_registry(&server, 100);
    registry.write(vec![put("a", "1"), put("b", "1")]).await.unwrap();
    server.fill();
    let refused = registry.write(vec![put("a", "2"), put("c", "2")]).await;
    let Err(RegistryError::Unavailable(reason)) = refused else { panic!("{refused:?}") };
    assert!(reason.contains("memory"), "{reason}");
    let (records, revision) = scanned(&*registry).await;
    assert_eq!((records.len(), revision), (2, 1));
    // One that frees memory first may be done, then in full.
    let done = registry.write(vec![delete("a"), put("c", "2")]).await;
    let (records, revision) = scanned(&*registry).await;
    let whole = records.contains_key(&b"c"[..]) && !records.contains_key(&b"a"[..]);
    let absent = !records.contains_key(&b"c"[..]) && records.contains_key(&b"a"[..]);
    assert!(if done.is_ok() { whole && revision == 2 } else { absent && revision == 1 });
}

#[tokio::test]
async fn errors_do_not_show_the_password() {
    let Some(server) = RedisServer::start_with(&["--requirepass", "right"]) else { return };
    let url = format!("redis://:hunter2@127.0.0.1:{}", server.port());
    let settings = RedisSettings { key_prefix: "test:".into(), ..RedisSettings::new(url).unwrap() };
    let registry = RedisRegistry::connect(&settings).unwrap();
    let refused = registry.write(vec![put("a", "1")]).await.unwrap_err();
    let shown = format!("{refused} {refused:?} {registry:?} {settings:?}");
    assert!(shown.contains("Password authentication failed"), "{shown}");
    assert!(!shown.contains("hunter2"), "{shown}");
}
