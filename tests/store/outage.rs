//! The store while Redis is away, stuck, restarted, out of memory or closed to us: in time, and never twice.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tollgate::domain::Commit;
use tollgate::redis::RedisSettings;
use tollgate::store::redis::{BreakerState, MAX_WAITING, RedisStore, StoreOptions};
use tollgate::store::{Answer, LimitStore, StoreError};

use super::live::{connected, decide, one, reading, until};
use super::redis_server::{RedisServer, free_port};

/// The deadline of a call.
const DEADLINE: Duration = Duration::from_millis(10);
/// A deadline, and what a busy machine may add.
const IN_TIME: Duration = Duration::from_millis(250);

/// Decides within [`DEADLINE`] and checks that it is kept.
async fn decide_in_time(store: &RedisStore, key: &str) -> Answer {
    let start = Instant::now();
    let answer = store.decide(&one(key), Commit::Together, (start + DEADLINE).into()).await;
    assert!(start.elapsed() < IN_TIME, "{:?}", start.elapsed());
    answer
}

/// The reason for which calls are refused, once they are. The first ones may be sent, or wait for a
/// connection, until their time is over.
async fn reason(store: &RedisStore) -> String {
    let late = Instant::now() + Duration::from_secs(10);
    loop {
        match decide_in_time(store, "any").await.failure {
            Some(StoreError::Unavailable(reason)) => return reason,
            Some(StoreError::Timeout) if Instant::now() < late => {}
            other => panic!("{other:?}"),
        }
    }
}

/// A store for which no frame is ever overdue.
async fn patiently_connected(settings: &RedisSettings, max_waiting: usize) -> RedisStore {
    let deadline = Duration::from_secs(20);
    let options =
        StoreOptions { max_waiting, allowance: deadline.into(), ..StoreOptions::default() };
    let store = RedisStore::connect_with(settings, settings.connector().unwrap(), options);
    until("connected", || store.is_up()).await;
    store
}

#[tokio::test]
async fn starts_without_redis_and_connects_once_it_is_there() {
    let port = free_port();
    let store =
        RedisStore::connect(&RedisSettings::new(format!("redis://127.0.0.1:{port}")).unwrap())
            .unwrap();
    let first = reason(&store).await;
    assert!(first.contains("refused"), "a call waits for the first attempt: {first}");
    let Some(probe) = RedisServer::start() else { return };
    drop(probe);
    let _server = RedisServer::on_port(port, &[]);
    until("connected", || store.is_up()).await;
    assert_eq!(reading(&decide(&store, &one("key")).await, 0).remaining, 299);
}

#[tokio::test]
async fn flushed_script_is_sent_again() {
    let Some(server) = RedisServer::start() else { return };
    let store = connected(&RedisSettings::new(server.url()).unwrap()).await;
    for left in [299, 298, 297] {
        redis::cmd("SCRIPT").arg("FLUSH").exec(&mut server.connection()).unwrap();
        let answer = decide(&store, &one("key")).await;
        assert_eq!((reading(&answer, 0).remaining, answer.failure), (left, None));
    }
}

#[tokio::test]
async fn restarted_redis_is_noticed_without_a_call_and_found_again() {
    let Some(mut server) = RedisServer::start() else { return };
    let store = connected(&RedisSettings::new(server.url()).unwrap()).await;
    decide(&store, &one("key")).await;
    server.stop();
    until("disconnected", || !store.is_up()).await;
    assert!(matches!(
        decide_in_time(&store, "key").await.failure,
        Some(StoreError::Unavailable(_))
    ));
    server.restart();
    until("connected", || store.is_up()).await;
    assert_eq!(reading(&decide(&store, &one("key")).await, 0).remaining, 299);
}

#[tokio::test]
async fn stuck_redis_is_answered_for_in_time_then_given_up() {
    let Some(server) = RedisServer::start() else { return };
    let store = connected(&RedisSettings::new(server.url()).unwrap()).await;
    server.pause();
    assert_eq!(decide_in_time(&store, "key").await.failure, Some(StoreError::Timeout));
    let given_up = |reason: &str| reason.contains("500ms") || reason.contains("within");
    let late = Instant::now() + Duration::from_secs(10);
    while !given_up(&reason(&store).await) {
        assert!(Instant::now() < late, "{}", reason(&store).await);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(store.breakers(), [BreakerState::Down]);
    server.resume();
    until("connected", || store.is_up()).await;
    assert_eq!(decide(&store, &one("other")).await.failure, None);
}

#[tokio::test]
async fn late_redis_is_left_alone_and_its_late_answer_brings_it_back() {
    let Some(server) = RedisServer::start() else { return };
    let store = connected(&RedisSettings::new(server.url()).unwrap()).await;
    decide(&store, &one("key")).await;
    let frames = store.frames();
    server.pause();
    let answer = decide_in_time(&store, "key").await;
    assert_eq!(answer.failure, Some(StoreError::Timeout));
    until("overdue", || store.breakers() == [BreakerState::Overdue]).await;
    let refused = Instant::now();
    for _ in 0..100 {
        let answer = decide_in_time(&store, "key").await;
        assert!(matches!(answer.failure, Some(StoreError::Unavailable(_))), "{answer:?}");
    }
    assert!(refused.elapsed() < Duration::from_millis(50), "{:?}", refused.elapsed());
    server.resume();
    let late = answer.late.into_iter().next().expect("what becomes of it").await;
    assert_eq!(late.expect("the late answer").charged, [true]);
    until("in use", || store.is_up()).await;
    assert_eq!((store.frames(), store.late_answers()), (frames + 1, 1));
    assert_eq!(reading(&decide(&store, &one("key")).await, 0).remaining, 297);
}

#[tokio::test]
async fn abandoned_calls_are_never_sent() {
    let Some(server) = RedisServer::start() else { return };
    let patient = Duration::from_secs(20);
    let settings =
        RedisSettings { response_timeout: patient, ..RedisSettings::new(server.url()).unwrap() };
    let store = patiently_connected(&settings, MAX_WAITING).await;
    server.pause();
    // The first call of each frame is on its way, the others wait and give up. They are too few for
    // the breaker.
    for _ in 0..8 {
        assert_eq!(decide_in_time(&store, "key").await.failure, Some(StoreError::Timeout));
    }
    server.resume();
    let answer = decide(&store, &one("key")).await;
    assert_eq!(reading(&answer, 0).remaining, 300 - settings.frames_in_flight as u64 - 1);
    assert_eq!(store.frames(), settings.frames_in_flight as u64 + 1);
}

#[tokio::test]
async fn every_call_keeps_its_own_deadline() {
    let Some(server) = RedisServer::start() else { return };
    let patient = Duration::from_secs(20);
    let settings = RedisSettings {
        response_timeout: patient,
        frames_in_flight: 1,
        ..RedisSettings::new(server.url()).unwrap()
    };
    let store = Arc::new(patiently_connected(&settings, MAX_WAITING).await);
    server.pause();
    // One is sent, the others wait; the first to come is the last to give up.
    let mut calls = JoinSet::new();
    let start = Instant::now();
    for milliseconds in [400, 20, 200] {
        let (store, patience) = (Arc::clone(&store), Duration::from_millis(milliseconds));
        calls.spawn(async move {
            let answer =
                store.decide(&one("key"), Commit::Together, (start + patience).into()).await;
            assert_eq!(answer.failure, Some(StoreError::Timeout));
            let taken = start.elapsed();
            assert!(patience <= taken && taken < patience + IN_TIME, "{patience:?}: {taken:?}");
        });
    }
    calls.join_all().await;
    assert_eq!(store.frames(), 1);
}

#[test]
fn store_whose_runtime_has_ended_answers_at_once() {
    let Some(server) = RedisServer::start() else { return };
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let home = runtime();
    let store = home.block_on(connected(&RedisSettings::new(server.url()).unwrap()));
    drop(home);
    let Some(StoreError::Unavailable(reason)) =
        runtime().block_on(decide(&store, &one("key"))).failure
    else {
        panic!("an answer without a connection");
    };
    assert_eq!(reason, "the connection task has ended");
    assert!(!store.is_up(), "nothing answers any more");
}

#[tokio::test]
async fn full_queue_refuses_at_once() {
    let Some(server) = RedisServer::start() else { return };
    let settings =
        RedisSettings { frames_in_flight: 1, ..RedisSettings::new(server.url()).unwrap() };
    let store = Arc::new(patiently_connected(&settings, 4).await);
    server.pause();
    let mut calls = JoinSet::new();
    for _ in 0..20 {
        let store = Arc::clone(&store);
        calls.spawn(async move { decide_in_time(&store, "key").await.failure });
    }
    let failures = calls.join_all().await;
    let full = StoreError::Unavailable("too many requests wait for Redis".into());
    let refused = failures.iter().filter(|failure| **failure == Some(full.clone())).count();
    let late = failures.iter().filter(|failure| **failure == Some(StoreError::Timeout)).count();
    assert!(refused >= 15 && late >= 4 && refused + late == 20, "{failures:?}");
}

#[tokio::test]
async fn redis_without_memory_rejects_and_keeps_reading() {
    let args = ["--maxmemory", "1", "--maxmemory-policy", "noeviction"];
    let Some(server) = RedisServer::start_with(&args) else { return };
    let store = connected(&RedisSettings::new(server.url()).unwrap()).await;
    match decide(&store, &one("key")).await.failure {
        Some(StoreError::Rejected(text)) => assert!(text.starts_with("OOM"), "{text}"),
        other => panic!("{other:?}"),
    }
    assert!(store.is_up(), "an error is no outage");
    server.make_room();
    assert_eq!(reading(&decide(&store, &one("key")).await, 0).remaining, 299);
}

#[tokio::test]
async fn wrong_password_is_named_and_not_shown() {
    let args = ["--requirepass", "open", "--user", "app", "on", ">sesame", "~*", "+@all"];
    let Some(server) = RedisServer::start_with(&args) else { return };
    let url = |login: &str| format!("redis://{login}@127.0.0.1:{}/3", server.port());
    let store = RedisStore::connect(&RedisSettings::new(url("app:hunter2")).unwrap()).unwrap();
    let reason = reason(&store).await;
    assert!(reason.to_lowercase().contains("authentication failed"), "{reason}");
    assert!(!reason.contains("hunter2"), "{reason}");
    assert!(!format!("{:?}", RedisSettings::new(url("app:hunter2")).unwrap()).contains("hunter2"));

    for login in [":open", "app:sesame"] {
        let store = connected(&RedisSettings::new(url(login)).unwrap()).await;
        assert_eq!(decide(&store, &one(login)).await.failure, None);
    }
    let client = redis::Client::open(url(":open")).unwrap();
    let keys: u64 = redis::cmd("DBSIZE").query(&mut client.get_connection().unwrap()).unwrap();
    assert_eq!(keys, 2, "the counters are in the database of the URL");
}

#[tokio::test]
async fn dropped_store_closes_its_connection() {
    let Some(server) = RedisServer::start() else { return };
    let mut connection = server.connection();
    let mut clients = || {
        let list: String = redis::cmd("CLIENT").arg("LIST").query(&mut connection).unwrap();
        list.lines().count()
    };
    let store = connected(&RedisSettings::new(server.url()).unwrap()).await;
    assert_eq!(clients(), 2);
    drop(store);
    until("closed", || clients() == 1).await;
}

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn each_outage_is_logged_once_per_reason_and_without_the_password() {
    let Some(mut server) = RedisServer::start_with(&["--requirepass", "sesame"]) else { return };
    let log = Log::default();
    let sink = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || sink.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);

    let url = format!("redis://:sesame@127.0.0.1:{}", server.port());
    let store = connected(&RedisSettings::new(url).unwrap()).await;
    server.stop();
    let late = Instant::now() + Duration::from_secs(10);
    until("disconnected", || !store.is_up()).await;
    // Several attempts to connect and many calls.
    let outage = Instant::now();
    while outage.elapsed() < Duration::from_millis(400) || !reason(&store).await.contains("refused")
    {
        assert!(Instant::now() < late);
        decide_in_time(&store, "key").await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    server.restart();
    until("connected", || store.is_up()).await;

    let text = String::from_utf8(log.0.lock().clone()).unwrap();
    let count = |part| text.matches(part).count();
    assert_eq!((count("connected to Redis"), count("Redis decides again")), (1, 1), "{text}");
    // The connection that was closed, and the first that was refused.
    assert_eq!((count("WARN"), text.lines().count()), (2, 4), "{text}");
    assert!(text.contains(&format!("127.0.0.1:{}", server.port())) && !text.contains("sesame"));
}
