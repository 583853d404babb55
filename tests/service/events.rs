//! Events of limits: `WatchEvents`, and the webhook with a receiver of the test's own.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;
use tollgate::edge::admin::pb::watch_events_response::{Event, Threshold};
use tollgate::edge::admin::pb::{WatchEventsRequest, WatchEventsResponse};
use tonic::Streaming;

use crate::support::grpc::{ask, codes, refund, with_hits};
use crate::support::operator::Operator;
use crate::support::redis::RedisServer;
use crate::support::tollgate::{Options, Tollgate, request};
use crate::support::wait::until;

const PATIENCE: Duration = Duration::from_secs(20);

const POLICIES: &str = "
domain: d
descriptors:
  - {key: user, rate_limit: {name: daily, unit: year, requests_per_unit: 10}}
  - {key: trial, shadow_mode: true, rate_limit: {unit: year, requests_per_unit: 2}}
  - {key: secret, sensitive: true, rate_limit: {unit: year, requests_per_unit: 1}}
  - {key: second, rate_limit: {unit: second, requests_per_unit: 1, algorithm: fixed_window}}
";

async fn watch_of(tollgate: &Tollgate, domain: &str) -> Streaming<WatchEventsResponse> {
    let mut policies = Operator::of(tollgate).await.policies();
    let asked = WatchEventsRequest { domain: domain.to_owned() };
    policies.watch_events(asked).await.unwrap().into_inner()
}

async fn next(stream: &mut Streaming<WatchEventsResponse>) -> Event {
    let message = timeout(PATIENCE, stream.message()).await.expect("an event").unwrap();
    message.expect("the stream goes on").event.expect("no sign of life before an event")
}

fn told(event: &Event) -> (Threshold, &str, &str, u64, u64) {
    (event.threshold(), &event.descriptor, &event.limit, event.used, event.capacity)
}

#[tokio::test]
async fn events_are_told_once_per_counter_threshold_and_period() {
    let tollgate = Options::serving(POLICIES).env("TOLLGATE__SENSITIVE_KEY", "pepper").start();
    let mut client = tollgate.client().await;
    // Nobody listens yet, so this is told of nobody.
    codes(&mut client, &request("d", &[&[("user", "before")]]), 12).await;
    let mut stream = watch_of(&tollgate, "d").await;
    let mut other = watch_of(&tollgate, "other").await;
    let user = |value| request("d", &[&[("user", value)]]);
    codes(&mut client, &user("a"), 14).await;
    let near = next(&mut stream).await;
    assert_eq!(told(&near), (Threshold::Near, "user=a", "daily", 8, 10));
    let reached = next(&mut stream).await;
    assert_eq!(told(&reached), (Threshold::Reached, "user=a", "daily", 10, 10));
    assert!(near.id != reached.id && near.id.len() == 32, "{near:?}");
    // Given back and used again, within the same period: nothing new.
    ask(&mut client, refund(user("a"), 5)).await;
    codes(&mut client, &user("a"), 9).await;
    // A cost that never fits says nothing of the limit.
    ask(&mut client, with_hits(user("b"), 11)).await;
    // At once, beyond all thresholds.
    ask(&mut client, with_hits(user("b"), 10)).await;
    assert_eq!(told(&next(&mut stream).await).1, "user=b");
    codes(&mut client, &request("d", &[&[("trial", "t")]]), 4).await;
    let shadowed = next(&mut stream).await;
    assert_eq!(told(&shadowed), (Threshold::Reached, "trial=t", "2/YEAR", 2, 2));
    assert!(shadowed.shadow);
    codes(&mut client, &request("d", &[&[("secret", "hunter2")]]), 1).await;
    let secret = next(&mut stream).await;
    assert!(
        secret.descriptor.starts_with("secret=") && !secret.descriptor.contains("hunter2"),
        "{secret:?}"
    );
    // A period later it is told again.
    let second = request("d", &[&[("second", "s")]]);
    let mut ids = BTreeSet::new();
    for _ in 0..2 {
        let found = timeout(PATIENCE, async {
            loop {
                codes(&mut client, &second, 1).await;
                if let Ok(Ok(Some(message))) =
                    timeout(Duration::from_millis(20), stream.message()).await
                {
                    return message.event.unwrap();
                }
            }
        });
        assert!(ids.insert(found.await.expect("an event each second").id));
    }
    assert!(
        timeout(Duration::from_millis(50), other.message()).await.is_err(),
        "of another domain"
    );
    assert!(tollgate.metric("tollgate_limit_events_total{threshold=\"near\"}").unwrap() >= 1.0);
}

#[tokio::test]
async fn replicas_tell_the_same_event_by_the_same_id() {
    let Some(redis) = RedisServer::start() else { return };
    let start = || Options::serving(POLICIES).redis(redis.url()).set("store.deadline=5s").start();
    let replicas = [start(), start()];
    let mut ids = BTreeSet::new();
    for tollgate in &replicas {
        let mut stream = watch_of(tollgate, "").await;
        let asked = with_hits(request("d", &[&[("user", "a")]]), 10);
        ask(&mut tollgate.client().await, asked).await;
        ids.insert(next(&mut stream).await.id);
    }
    assert_eq!(ids.len(), 1, "{ids:?}");
}

#[tokio::test]
async fn stream_ends_with_the_process() {
    let mut tollgate = Options::serving(POLICIES).start();
    let mut stream = watch_of(&tollgate, "").await;
    tollgate.signal("TERM");
    let end = timeout(PATIENCE, async { while let Ok(Some(_)) = stream.message().await {} });
    end.await.expect("the stream ends");
    assert!(tollgate.wait().success());
}

/// A receiver of `CloudEvents` that keeps what it takes.
struct Receiver {
    at: SocketAddr,
    kept: Arc<Mutex<Vec<(Value, HeaderMap)>>>,
    answer: watch::Sender<u16>,
}

#[derive(Clone)]
struct Answering {
    kept: Arc<Mutex<Vec<(Value, HeaderMap)>>>,
    answer: watch::Receiver<u16>,
}

async fn receive(
    State(answering): State<Answering>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let status = *answering.answer.borrow();
    if status == 0 {
        std::future::pending::<()>().await;
    }
    if status == 200 {
        let events: Vec<Value> = serde_json::from_slice(&body).unwrap();
        answering.kept.lock().extend(events.into_iter().map(|event| (event, headers.clone())));
    }
    StatusCode::from_u16(status).unwrap()
}

impl Receiver {
    async fn start() -> Self {
        let (kept, (answer, answered)) = (Arc::default(), watch::channel(200));
        let answering = Answering { kept: Arc::clone(&kept), answer: answered };
        let routes = axum::Router::new().route("/hook", post(receive)).with_state(answering);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { at, kept, answer }
    }

    async fn got(&self, count: usize) -> Vec<Value> {
        until("events at the webhook", async || {
            let kept = self.kept.lock();
            (kept.len() >= count).then(|| kept.iter().map(|(event, _)| event.clone()).collect())
        })
        .await
    }
}

fn hooked(receiver: &Receiver) -> Options {
    Options::serving(POLICIES)
        .set(format!("events.webhook.endpoint=http://{}/hook", receiver.at))
        .set("events.webhook.timeout=300ms")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhook_gets_cloud_events_through_failures() {
    let receiver = Receiver::start().await;
    let tollgate =
        hooked(&receiver).env("TOLLGATE__EVENTS__WEBHOOK__HEADERS", "x-token=hunter2").start();
    let mut client = tollgate.client().await;
    let mut use_up = async |value: &str| {
        ask(&mut client, with_hits(request("d", &[&[("user", value)]]), 10)).await;
    };
    use_up("a").await;
    let [event] = <[Value; 1]>::try_from(receiver.got(1).await).unwrap();
    let expected = json!({"domain": "d", "descriptor": "user=a", "rule": "user", "limit": "daily",
        "used": 10, "capacity": 10, "shadow": false});
    assert_eq!(event["data"], expected);
    assert_eq!(
        (&event["specversion"], &event["type"]),
        (&json!("1.0"), &json!("tollgate.limit.reached"))
    );
    assert_eq!(
        (&event["subject"], &event["datacontenttype"]),
        (&json!("user=a"), &json!("application/json"))
    );
    assert!(event["source"].as_str().unwrap().starts_with("urn:tollgate:"));
    assert!(
        event["time"].as_str().unwrap().ends_with('Z') && event["id"].as_str().unwrap().len() == 32
    );
    let headers = receiver.kept.lock()[0].1.clone();
    assert_eq!(headers["content-type"], "application/cloudevents-batch+json; charset=utf-8");
    assert_eq!(headers["x-token"], "hunter2");
    // Busy, then silent, then well: the same events arrive, and decisions did not wait.
    for (status, value) in [(503, "b"), (0, "c")] {
        receiver.answer.send(status).unwrap();
        let failed =
            tollgate.metric("tollgate_webhook_deliveries_total{result=\"failed\"}").unwrap();
        use_up(value).await;
        tollgate
            .wait_for_metric("tollgate_webhook_deliveries_total{result=\"failed\"}", failed + 1.0);
        receiver.answer.send(200).unwrap();
        let got = receiver.got(if value == "b" { 2 } else { 3 }).await;
        assert_eq!(got.last().unwrap()["subject"], format!("user={value}"));
    }
    let warnings =
        tollgate.log().into_iter().filter(|line| line.contains("do not reach the webhook"));
    assert_eq!(warnings.count(), 1);
    // What it refuses for good is dropped, and counted.
    receiver.answer.send(400).unwrap();
    use_up("d").await;
    tollgate.wait_for_metric("tollgate_limit_events_dropped_total{sink=\"webhook\"}", 1.0);
    assert!(tollgate.log().iter().all(|line| !line.contains("hunter2")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_receiver_loses_events_and_delays_no_decision() {
    let receiver = Receiver::start().await;
    receiver.answer.send(503).unwrap();
    let tollgate = hooked(&receiver).set("events.max_queue=4").start();
    let mut client = tollgate.client().await;
    for user in 0..200 {
        let value = user.to_string();
        let asked = with_hits(request("d", &[&[("user", value.as_str())]]), 10);
        ask(&mut client, asked).await;
    }
    receiver.answer.send(200).unwrap();
    tollgate.wait_for_metric("tollgate_limit_events_dropped_total{sink=\"webhook\"}", 100.0);
    until("the last ones arrive", async || {
        receiver.kept.lock().iter().any(|(event, _)| event["subject"] == "user=199").then_some(())
    })
    .await;
    assert_eq!(tollgate.metric("tollgate_limit_events_total{threshold=\"reached\"}"), Some(200.0));
}
