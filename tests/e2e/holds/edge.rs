//! The shipped Envoy with descriptors that hold and settle, a tollgate on a real Redis, and clients
//! that may leave.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::MutexGuard;
use tokio::task::JoinHandle;

use super::configuration;
use super::upstream::Upstream;
use crate::stack::alone;
use crate::support::envoy::{self, Envoy};
use crate::support::grpc::with_hits;
use crate::support::operator::Operator;
use crate::support::redis::RedisServer;
use crate::support::tollgate::{Options, Tollgate, request};
use crate::support::wait::until;

/// The slots of a user.
const MAX: u64 = 60;
const TOKENS: u64 = 1000;
/// The time after which a slot of the limit `brief` is free, whatever becomes of its request.
const BRIEF: Duration = Duration::from_secs(4);
/// The estimate of a request that states none.
pub const ESTIMATE: u64 = 10;
/// The cost of each answer of the upstream.
pub const COST: u64 = 7;
/// The limits of the domain of the shipped filter.
pub const POLICY: &str = "
domain: edge
descriptors:
  - key: user
    rate_limit: {name: in-flight, algorithm: concurrency, max: 60, ttl: 10m}
  - key: turn
    rate_limit: {name: one, algorithm: concurrency, max: 1, ttl: 10m}
  - key: brief
    rate_limit: {name: brief, algorithm: concurrency, max: 60, ttl: 4s}
  - key: budget
    rate_limit: {name: tokens, algorithm: sliding_window, unit: day, requests_per_unit: 1000,
                 hold: {ttl: 10m, estimate: {default: 10, max: 500}}}
";

/// The time in which a settlement arrives on a busy machine.
const SETTLED_WITHIN: Duration = Duration::from_secs(10);

/// HTTP/1.1 or HTTP/2.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Version {
    One,
    Two,
}

pub const VERSIONS: [Version; 2] = [Version::One, Version::Two];

/// All between clients and the upstream.
pub struct Edge {
    pub envoy: Envoy,
    pub tollgate: Tollgate,
    users: AtomicU64,
    pub upstream: Upstream,
    _redis: RedisServer,
    _alone: MutexGuard<'static, ()>,
}

impl Edge {
    /// Nothing where a tool is missing, see [`envoy::installed`].
    pub async fn start() -> Option<Self> {
        Self::start_with(|_| ()).await
    }

    /// The same with a configuration of Envoy that is changed like this.
    pub async fn start_with(change: impl FnOnce(&mut Value)) -> Option<Self> {
        Self::assemble(async |tollgate| tollgate, change).await
    }

    /// The same where Envoy asks the address that `before` makes of the tollgate's.
    pub async fn start_before(before: impl AsyncFnOnce(SocketAddr) -> SocketAddr) -> Option<Self> {
        Self::assemble(before, |_| ()).await
    }

    async fn assemble(
        before: impl AsyncFnOnce(SocketAddr) -> SocketAddr,
        change: impl FnOnce(&mut Value),
    ) -> Option<Self> {
        let program = envoy::installed()?;
        let alone = alone().await;
        let redis = RedisServer::start()?;
        let options = Options::serving(POLICY).redis(redis.url());
        let tollgate = options.set("store.deadline=5s").start();
        let upstream = Upstream::start().await;
        let asked = before(tollgate.at.grpc).await;
        let mut configuration = configuration::of(asked, upstream.at);
        change(&mut configuration);
        let envoy = Envoy::run(&program, &configuration.to_string()).await;
        envoy.until_healthy("ratelimit", 1).await;
        let users = AtomicU64::new(0);
        Some(Self { envoy, tollgate, users, upstream, _redis: redis, _alone: alone })
    }

    /// A user of whom no limit knows.
    pub fn new_user(&self) -> String {
        format!("user-{}", self.users.fetch_add(1, Ordering::Relaxed))
    }

    /// The hits that a request of none would leave of a limit. It is not made: a peek at a limit
    /// that holds takes one hit, as an estimate does.
    async fn left(&self, domain: &str, key: &str, user: &str) -> u64 {
        let peek = with_hits(request(domain, &[&[(key, user)]]), 0);
        let told = Operator::of(&self.tollgate).await.explain(peek).await;
        told.descriptors[0].counters[0].remaining()
    }

    /// The slots that are taken.
    pub async fn in_flight(&self, key: &str, user: &str) -> u64 {
        MAX - self.left("edge", key, user).await
    }

    /// The requests of a user that are in flight, and the tokens that are used or held.
    pub async fn taken(&self, domain: &str, user: &str) -> (u64, u64) {
        let in_flight = MAX - self.left(domain, "user", user).await;
        (in_flight, TOKENS - 1 - self.left(domain, "budget", user).await)
    }

    /// Waits until a slot of the limit `brief` ends by itself. Its request `began` after this.
    pub async fn until_brief_slot_ends(&self, user: &str, began: Instant) {
        let is_free = async || (self.in_flight("brief", user).await == 0).then_some(());
        until("the slot ends by itself", is_free).await;
        assert!(began.elapsed() >= BRIEF, "it was free after {:?}", began.elapsed());
    }

    /// Waits until nothing of the user is in flight and exactly this is used.
    pub async fn until_settled(&self, what: &str, user: &str, used: u64) {
        self.until_settled_in("edge", what, user, used).await;
    }

    pub async fn until_settled_in(&self, domain: &str, what: &str, user: &str, used: u64) {
        let deadline = Instant::now() + SETTLED_WITHIN;
        loop {
            let now = self.taken(domain, user).await;
            if now == (0, used) {
                return;
            }
            let late = Instant::now() > deadline;
            assert!(!late, "{what}: {now:?} are in flight and used, and not (0, {used})");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub fn holds(&self, state: &str) -> u64 {
        let series = format!("tollgate_holds_total{{state=\"{state}\"}}");
        self.tollgate.metric(&series).unwrap() as u64
    }

    /// Waits until so many holds were in this state, and never more.
    pub async fn until_holds(&self, state: &str, count: u64) {
        let reached = async || (self.holds(state) >= count).then_some(());
        until(&format!("{count} are {state}"), reached).await;
        assert_eq!(self.holds(state), count, "{state}");
    }

    /// The calls that Envoy has made to tollgate.
    pub async fn calls(&self) -> u64 {
        self.envoy.stats().await["cluster.ratelimit.upstream_rq_total"]
    }

    /// Tollgate answered all that Envoy asked, and every hold that was made was settled, once.
    pub async fn assert_all_is_settled(&self) {
        let ended = || {
            let handled = ["settled", "self_settled"].map(|state| self.holds(state));
            handled.iter().sum::<u64>()
        };
        until("every hold is settled", async || (ended() >= self.holds("reserved")).then_some(()))
            .await;
        for state in ["again", "late", "unmatched", "invalid", "unguarded"] {
            assert_eq!(self.holds(state), 0, "{state}");
        }
        self.assert_nothing_was_bypassed().await;
    }

    pub async fn assert_nothing_was_bypassed(&self) {
        let stats = self.envoy.stats().await;
        let stat = |name: &str| stats.get(&format!("cluster.backends.ratelimit.{name}")).copied();
        for failure in ["error", "failure_mode_allowed"] {
            assert_eq!(stat(failure).unwrap_or(0), 0, "{failure}\n{}", self.envoy.said());
        }
        assert!(stat("ok") > Some(0), "tollgate was not asked");
        assert_eq!(self.tollgate.errors(), [""; 0]);
    }

    /// Then Envoy has the answer of tollgate, and no cancellation of its call can cross with it.
    pub async fn until_upstream_is_asked(&self, before: u64) {
        let is_asked = async || (self.upstream.asked() > before).then_some(());
        until("the upstream is asked", is_asked).await;
    }

    /// A client on a connection of its own.
    pub async fn client(&self, version: Version) -> Client {
        let stream = TcpStream::connect(self.envoy.edge).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let io = TokioIo::new(stream);
        let (sender, drives) = match version {
            Version::One => {
                let (sender, connection) = http1::handshake(io).await.unwrap();
                (Sender::One(sender), tokio::spawn(async { drop(connection.await) }))
            }
            Version::Two => {
                let (sender, connection) =
                    http2::handshake(TokioExecutor::new(), io).await.unwrap();
                (Sender::Two(sender), tokio::spawn(async { drop(connection.await) }))
            }
        };
        Client { sender, drives, edge: self.envoy.edge }
    }
}

enum Sender {
    One(http1::SendRequest<Empty<Bytes>>),
    Two(http2::SendRequest<Empty<Bytes>>),
}

/// A client; dropped, it closes its connection.
pub struct Client {
    sender: Sender,
    drives: JoinHandle<()>,
    edge: SocketAddr,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.drives.abort();
    }
}

impl Client {
    /// The answer up to its headers.
    pub async fn begin(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> hyper::Result<Response<Incoming>> {
        let uri = match self.sender {
            Sender::One(_) => format!("/api/{path}"),
            Sender::Two(_) => format!("http://{}/api/{path}", self.edge),
        };
        let mut request = Request::get(uri).header("host", "edge");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Empty::new()).unwrap();
        match &mut self.sender {
            Sender::One(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
            Sender::Two(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
        }
    }

    /// The status and the headers, after the whole answer has come; a body may be cut off.
    pub async fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> (u16, HeaderMap) {
        let (parts, body) = self.begin(path, headers).await.unwrap().into_parts();
        drop(body.collect().await);
        (parts.status.as_u16(), parts.headers)
    }

    /// Asks and leaves after this time, with or without an answer.
    pub async fn leave_after(mut self, time: Duration, path: &str, headers: &[(&str, &str)]) {
        drop(tokio::time::timeout(time, self.begin(path, headers)).await);
    }
}
