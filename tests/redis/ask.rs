//! Requests that show whether Redis decides, and the reason why it does not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tollgate::domain::Key;
use tollgate::edge::pb::rate_limit_response::Code;
use tollgate::redis::RedisSettings;
use tollgate::store::redis::RedisStore;
use tollgate::store::{LimitStore as _, StoreError};

use crate::support::grpc::{Client, ask, is_degraded};
use crate::support::operator::{Operator, daily};
use crate::support::tollgate::{Options, Tollgate, request};

pub const POLICIES: &str = "
domain: d
descriptors:
  - {key: k, rate_limit: {unit: day, requests_per_unit: 3}}
  - {key: many, rate_limit: {unit: day, requests_per_unit: 4000000000}}
";

const PATIENCE: Duration = Duration::from_secs(20);

/// A tollgate whose decisions wait for Redis as long as a busy machine needs.
pub fn tollgate() -> Options {
    // Without the deny cache every request reaches Redis.
    Options::serving(POLICIES).set("store.deadline=5s").set("deny_cache.max_keys=0")
}

/// Asks once; whether Redis has decided.
pub async fn is_decided(client: &mut Client) -> bool {
    !is_degraded(&ask(client, request("d", &[&[("many", "probe")]])).await)
}

/// Waits until Redis decides.
pub async fn until_decided(client: &mut Client) {
    let late = Instant::now() + PATIENCE;
    while !is_decided(client).await {
        assert!(Instant::now() < late, "Redis is not used");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Redis holds a limit, and stores a change of an operator that is in force.
pub async fn works(tollgate: &Tollgate, name: &str) {
    let mut client = tollgate.client().await;
    until_decided(&mut client).await;
    let mut codes = Vec::new();
    for _ in 0..4 {
        let answer = ask(&mut client, request("d", &[&[("k", name)]])).await;
        assert!(!is_degraded(&answer), "{name}: {:?}", tollgate.log());
        codes.push(answer.overall_code());
    }
    assert_eq!(codes, [Code::Ok, Code::Ok, Code::Ok, Code::OverLimit], "{name}");
    let operator = Operator::of(tollgate).await;
    // The registry may wait for its next attempt to connect.
    let late = Instant::now() + PATIENCE;
    while let Err(status) = operator.upsert(daily(&format!("{name}-blocked"), 0)).await {
        assert!(Instant::now() < late, "{name}: {status}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let blocked = request("d", &[&[("k", &format!("{name}-blocked"))]]);
    assert_eq!(ask(&mut client, blocked).await.overall_code(), Code::OverLimit, "{name}");
}

/// The reason why no connection is made by these settings.
pub async fn failure(settings: &RedisSettings) -> String {
    let store = RedisStore::connect(settings).unwrap();
    let late = Instant::now() + PATIENCE;
    while !store.has_tried() {
        assert!(Instant::now() < late, "no attempt to connect has ended");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let deadline = tokio::time::Instant::now() + Duration::from_secs(1);
    match store.forget(&[Key::new(&b"k"[..])], deadline.into()).await {
        Err(StoreError::Unavailable(reason)) => reason,
        other => panic!("connected: {other:?}"),
    }
}

/// Callers that ask all the time.
pub struct Load {
    stop: Arc<AtomicBool>,
    pub asked: Arc<AtomicU64>,
    pub degraded: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    pub async fn start(tollgate: &Tollgate, callers: usize) -> Self {
        let (stop, asked, degraded) =
            <(Arc<AtomicBool>, Arc<AtomicU64>, Arc<AtomicU64>)>::default();
        let mut tasks = Vec::new();
        for _ in 0..callers {
            let mut client = tollgate.client().await;
            let (stop, asked, degraded) =
                (Arc::clone(&stop), Arc::clone(&asked), Arc::clone(&degraded));
            tasks.push(tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    if !is_decided(&mut client).await {
                        degraded.fetch_add(1, Ordering::Relaxed);
                    }
                    asked.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }));
        }
        Self { stop, asked, degraded, tasks }
    }

    /// Ends it: the calls that were asked, and those without Redis. A call that fails is a panic.
    pub async fn end(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.expect("every call is answered");
        }
        (self.asked.load(Ordering::Relaxed), self.degraded.load(Ordering::Relaxed))
    }
}
