//! The backends of the demo are slowed to half for a while, behind the real Envoy: with a limit that
//! adapts most of what they can still do succeeds, without one next to nothing.
//!
//! `UPDATE_DOCS=1` runs it for a minute, and makes the picture of the docs anew.

mod picture;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tollgate::edge::admin::pb::ListScalesRequest;

use crate::holds::configuration::{self, cluster, endpoints, filters, routes};
use crate::stack::alone;
use crate::support::backend::Backend;
use crate::support::envoy::{self, Envoy};
use crate::support::operator::Operator;
use crate::support::redis::RedisServer;
use crate::support::tollgate::{Options, Tollgate};

const ADAPTIVE: &str = "
domain: edge
descriptors:
  - key: backend
    value: quotes
    rate_limit: {name: in-flight, algorithm: concurrency, max: 300, ttl: 10s}
    adaptive: {target: {p95: 200ms, errors: 5%}, min: 5%}
";

const FIXED: &str = "
domain: edge
descriptors:
  - key: backend
    value: quotes
    rate_limit: {name: in-flight, algorithm: concurrency, max: 300, ttl: 10s}
";

/// Requests in a second: those that are offered, and those that the backends can do together.
const OFFERED: u32 = 270;
const CAPACITY: u32 = 300;
const UNWELL: u32 = CAPACITY / 2;

const BACKENDS: u32 = 3;

/// The time that Envoy gives the backends.
const TIMEOUT: &str = "1s";

/// Seconds before, and after.
const BEFORE: usize = 5;
const AFTER: usize = 15;

/// Connections: each has a hundred streams at most.
const CONNECTIONS: usize = 4;

/// The requests of one second, by what became of them.
#[derive(Clone, Copy, Debug, Default)]
struct Second {
    good: u32,
    denied: u32,
    failed: u32,
    /// The scale of the rule at its end, in percent.
    scale: f64,
}

/// A client that asks at a steady rate, whatever is answered.
struct Load {
    connections: Vec<SendRequest<Empty<Bytes>>>,
    uri: String,
    seconds: Arc<Mutex<Vec<Second>>>,
    begun: Instant,
}

impl Load {
    async fn start(envoy: &Envoy, seconds: usize) -> Self {
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            let stream = TcpStream::connect(envoy.edge).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let io = TokioIo::new(stream);
            let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
            tokio::spawn(async { drop(connection.await) });
            connections.push(sender);
        }
        let uri = format!("http://{}/api/v1/prices/ACME", envoy.edge);
        let seconds = Arc::new(Mutex::new(vec![Second::default(); seconds]));
        Self { connections, uri, seconds, begun: Instant::now() }
    }

    /// Asks until all seconds are over.
    async fn run(&self) {
        let mut ticks = interval(Duration::from_secs(1) / OFFERED);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let all = self.seconds.lock().len();
        for number in 0..all * OFFERED as usize {
            ticks.tick().await;
            self.ask(number);
        }
    }

    fn ask(&self, number: usize) {
        let mut connection = self.connections[number % CONNECTIONS].clone();
        let request = Request::get(&self.uri).body(Empty::new()).unwrap();
        let (seconds, begun) = (Arc::clone(&self.seconds), self.begun);
        tokio::spawn(async move {
            let answer = connection.send_request(request).await;
            let status = match answer {
                Ok(answer) => {
                    let status = answer.status().as_u16();
                    drop(answer.into_body().collect().await);
                    status
                }
                Err(_) => 0,
            };
            let mut seconds = seconds.lock();
            let Some(second) = seconds.get_mut(begun.elapsed().as_secs() as usize) else { return };
            match status {
                200 => second.good += 1,
                429 => second.denied += 1,
                _ => second.failed += 1,
            }
        });
    }
}

/// All between the client and the backends.
struct Stack {
    envoy: Envoy,
    tollgate: Tollgate,
    backends: Vec<Backend>,
    _redis: RedisServer,
}

impl Stack {
    async fn start(program: &std::path::Path, policy: &str) -> Option<Self> {
        let redis = RedisServer::start()?;
        let tollgate = Options::serving(policy).redis(redis.url()).set("store.deadline=1s").start();
        let mut backends = Vec::new();
        for number in 1..=BACKENDS {
            backends.push(Backend::start(&format!("backend-{number}")).await);
        }
        let mut configuration = configuration::of(tollgate.at.grpc, backends[0].at);
        reporting(&mut configuration, &backends);
        let envoy = Envoy::run(program, &configuration.to_string()).await;
        envoy.until_healthy("ratelimit", 1).await;
        Some(Self { envoy, tollgate, backends, _redis: redis })
    }

    async fn set_capacity(&self, together: u32) {
        for backend in &self.backends {
            backend.set_capacity(together / BACKENDS).await;
        }
    }

    /// The scale of the rule, in percent.
    async fn scale(&self, operator: &Operator) -> f64 {
        let all = ListScalesRequest::default();
        let scales = operator.policies().list_scales(all).await.unwrap().into_inner().scales;
        scales.first().map_or(100.0, |scale| scale.percent)
    }

    /// Slows the backends down for so many seconds.
    async fn run(&self, unwell: usize, after: usize) -> Vec<Second> {
        self.set_capacity(CAPACITY).await;
        let load = Load::start(&self.envoy, BEFORE + unwell + after).await;
        let operator = Operator::of(&self.tollgate).await;
        let changes = async {
            for second in 0..BEFORE + unwell + after {
                if second == BEFORE {
                    self.set_capacity(UNWELL).await;
                }
                if second == BEFORE + unwell {
                    self.set_capacity(CAPACITY).await;
                }
                tokio::time::sleep_until(load.begun + Duration::from_secs(second as u64 + 1)).await;
                let scale = self.scale(&operator).await;
                load.seconds.lock()[second].scale = scale;
            }
        };
        tokio::join!(load.run(), changes);
        // The last ones may be under way.
        sleep(Duration::from_secs(1)).await;
        assert_eq!(self.tollgate.errors(), [""; 0]);
        let stats = self.envoy.stats().await;
        assert_eq!(stats.get("cluster.backends.ratelimit.error").copied().unwrap_or(0), 0);
        load.seconds.lock().clone()
    }
}

/// The descriptors of docs/adaptive.md, all backends, and a timeout.
fn reporting(envoy: &mut Value, backends: &[Backend]) {
    let (_, recipe) =
        include_str!("../../docs/adaptive.md").split_once("```yaml\nrate_limits:").unwrap();
    let (recipe, _) = recipe.split_once("```").unwrap();
    let recipe = format!(
        "rate_limits:{}",
        recipe.replace("descriptor_value: search", "descriptor_value: quotes")
    );
    let limits: Value = serde_saphyr::from_str(&recipe).unwrap();
    filters(envoy)[0]["typed_config"]["rate_limits"] = limits["rate_limits"].clone();
    for route in routes(envoy) {
        if let Some(route) = route.get_mut("route") {
            route["timeout"] = json!(TIMEOUT);
            route.as_object_mut().unwrap().remove("retry_policy");
        }
    }
    let members: Vec<Value> = backends
        .iter()
        .map(|backend| endpoints(backend.at)[0]["lb_endpoints"][0].clone())
        .collect();
    cluster(envoy, "backends")["load_assignment"]["endpoints"] =
        json!([{ "lb_endpoints": members }]);
}

/// The share of what the backends can do while they are unwell that succeeds.
fn share(seconds: &[Second], unwell: usize) -> f64 {
    let good: u32 = seconds[BEFORE..BEFORE + unwell].iter().map(|second| second.good).sum();
    f64::from(good) / f64::from(UNWELL) / unwell as f64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backends_that_are_slowed_to_half_do_what_they_can_and_come_back() {
    let Some(program) = envoy::installed() else { return };
    let _alone = alone().await;
    let is_picture = std::env::var_os("UPDATE_DOCS").is_some();
    // Some seconds pass until their queue is gone: of a short time a larger part.
    let (unwell, least) = if is_picture { (60, 0.8) } else { (25, 0.6) };
    let Some(stack) = Stack::start(&program, ADAPTIVE).await else { return };
    let adaptive = stack.run(unwell, AFTER).await;
    drop(stack);
    let with = share(&adaptive, unwell);
    assert!(with >= least, "{with:.2} of what they can: {adaptive:#?}");
    let back = &adaptive[BEFORE + unwell + AFTER - 6..BEFORE + unwell + AFTER - 1];
    let good: u32 = back.iter().map(|second| second.good).sum();
    assert!(f64::from(good) >= 0.95 * f64::from(OFFERED * 5), "all is back: {back:?}");
    assert!(adaptive.iter().any(|second| second.scale < 60.0), "{adaptive:#?}");
    assert!(adaptive.iter().all(|second| (5.0..=100.0).contains(&second.scale)));

    let Some(stack) = Stack::start(&program, FIXED).await else { return };
    let unwell = if is_picture { unwell } else { 12 };
    let fixed = stack.run(unwell, 1).await;
    let without = share(&fixed, unwell);
    assert!(without < 0.35, "{without:.2} succeeds with a fixed limit: {fixed:#?}");
    if is_picture {
        println!("{with:.3} with an adaptive limit, {without:.3} without");
        picture::write(&adaptive, &fixed);
    }
}
