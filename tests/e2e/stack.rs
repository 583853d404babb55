//! The stack under test, and the proof that tollgate decided every request.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard};

use crate::mutual::Certificates;
use crate::support::backend::Backend;
use crate::support::caller::Caller;
use crate::support::envoy::{self, Envoy, Timeouts};
use crate::support::proxy::Proxy;
use crate::support::redis::RedisServer;
use crate::support::tollgate::{Options, Tollgate};

const SHIPPED_POLICIES: &str = include_str!("../../deploy/policies/edge.yaml");

/// How the shipped Redis keeps what operators change.
const REDIS: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];

/// One stack at a time: several would take each other's processor time and miss Envoy's 50 ms.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Waits until no other test's stack runs.
pub async fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().await
}

/// Everything between clients and backends. Who asks ends before who answers.
pub struct Stack {
    pub envoy: Envoy,
    pub tollgates: [Tollgate; 2],
    pub backends: [Backend; 3],
    proxy: Option<Proxy>,
    pub redis: RedisServer,
    policies: PathBuf,
    /// How the tollgates were started.
    options: Options,
    /// What tollgates decided that have ended and taken their metrics along.
    decided_before: u64,
    sent: Arc<AtomicU64>,
    _dir: TempDir,
    _alone: MutexGuard<'static, ()>,
}

/// What differs from the shipped stack.
struct Parts<'a> {
    edits: &'a [(&'a str, &'a str)],
    settings: Vec<String>,
    timeouts: Timeouts,
    through_proxy: bool,
    /// That of Envoy's cluster of tollgates, if not in clear.
    transport_socket: Option<String>,
}

impl Default for Parts<'_> {
    fn default() -> Self {
        Self {
            edits: &[],
            settings: Vec::new(),
            timeouts: Timeouts::Patient,
            through_proxy: false,
            transport_socket: None,
        }
    }
}

impl Stack {
    /// The stack with shipped policies and settings; nothing where a tool is missing, see [`envoy::installed`].
    pub async fn start() -> Option<Self> {
        Self::assemble(Parts::default()).await
    }

    /// The stack with shipped timeouts, too, which a busy machine may miss.
    pub async fn start_as_shipped() -> Option<Self> {
        Self::assemble(Parts { timeouts: Timeouts::Shipped, ..Parts::default() }).await
    }

    /// The stack with these edits of the policies, each (shipped, instead), and these settings of both tollgates.
    pub async fn start_with(edits: &[(&str, &str)], settings: &[&str]) -> Option<Self> {
        let settings = settings.iter().map(ToString::to_string).collect();
        Self::assemble(Parts { edits, settings, ..Parts::default() }).await
    }

    /// The stack with a proxy between the tollgates and Redis: [`Self::proxy`].
    pub async fn start_through_proxy() -> Option<Self> {
        Self::assemble(Parts { through_proxy: true, ..Parts::default() }).await
    }

    /// The stack with TLS between Envoy and the tollgates, and connections that get old soon.
    pub async fn start_over_tls(certificates: &Certificates) -> Option<Self> {
        let mut settings = certificates.settings();
        settings.push("grpc.max_connection_age=500ms".to_owned());
        let transport_socket = certificates.transport_socket();
        Self::assemble(Parts {
            settings,
            transport_socket: Some(transport_socket),
            ..Parts::default()
        })
        .await
    }

    async fn assemble(parts: Parts<'_>) -> Option<Self> {
        let Parts { edits, settings, timeouts, through_proxy, transport_socket } = parts;
        let program = envoy::installed()?;
        let alone = alone().await;
        let redis = RedisServer::start_with(&REDIS)?;
        let proxy = through_proxy.then(|| Proxy::start(redis.port()));
        let url = proxy.as_ref().map_or_else(|| redis.url(), Proxy::url);
        let dir = tempfile::tempdir().unwrap();
        let policies = dir.path().join("edge.yaml");
        let text =
            edits.iter().fold(SHIPPED_POLICIES.to_owned(), |text, edit| edited(&text, *edit));
        std::fs::write(&policies, text).unwrap();
        let options = Options::default().policies(&policies).redis(url);
        let options = settings.iter().fold(options, Options::set);
        let tollgates = [options.clone().start(), options.clone().start()];
        let backends = [
            Backend::start("backend-1").await,
            Backend::start("backend-2").await,
            Backend::start("backend-3").await,
        ];
        let asked = tollgates.each_ref().map(|tollgate| tollgate.at.grpc);
        let served = backends.each_ref().map(|backend| backend.at);
        let transport_socket = transport_socket.as_deref();
        let envoy = Envoy::start(&program, &asked, &served, timeouts, transport_socket).await;
        Some(Self {
            envoy,
            tollgates,
            backends,
            proxy,
            redis,
            policies,
            options,
            decided_before: 0,
            sent: Arc::default(),
            _dir: dir,
            _alone: alone,
        })
    }

    /// The proxy of [`Self::start_through_proxy`].
    pub fn proxy(&self) -> &Proxy {
        self.proxy.as_ref().expect("a stack with a proxy")
    }

    /// A client at 127.0.0.`host`.
    pub fn client(&self, host: u8) -> Caller {
        let from = Ipv4Addr::new(127, 0, 0, host);
        Caller::new(self.envoy.edge, from, Arc::clone(&self.sent))
    }

    /// Edits the policies that both tollgates read, by renaming over the file as editors do.
    pub fn edit_policies(&self, edit: (&str, &str)) {
        let text = std::fs::read_to_string(&self.policies).unwrap();
        let beside = self.policies.with_extension("new");
        std::fs::write(&beside, edited(&text, edit)).unwrap();
        std::fs::rename(beside, &self.policies).unwrap();
    }

    /// Kills both tollgates and Redis with signal 9, starts them again where they were, and waits until Envoy has noticed.
    /// Nobody may send requests meanwhile.
    pub async fn kill_and_restart_what_decides(&mut self) {
        self.decided_before += self.metric("tollgate_requests_total").await;
        for tollgate in &mut self.tollgates {
            tollgate.signal("KILL");
            tollgate.wait();
        }
        self.envoy.until_healthy("ratelimit", 0).await;
        self.redis.restart();
        for tollgate in &mut self.tollgates {
            let again = format!("grpc.listen={}", tollgate.at.grpc);
            *tollgate = self.options.clone().set(again).start();
        }
        self.envoy.until_healthy("ratelimit", 2).await;
    }

    /// The sum of an instrument's series over the tollgates that run.
    pub async fn metric(&self, name: &str) -> u64 {
        let mut sum = 0;
        for tollgate in &self.tollgates {
            sum += metric_of(tollgate, name).await;
        }
        sum
    }

    /// How many calls have a second attempt, which may have been counted besides the first.
    pub async fn retried(&self) -> u64 {
        self.envoy.stats().await["cluster.ratelimit.upstream_rq_retry"]
    }

    /// Every request that clients sent was decided by a tollgate, and obeyed its decision.
    pub async fn assert_nothing_was_bypassed(&self) {
        let mut decided = self.decided_before;
        for tollgate in &self.tollgates {
            decided += metric_of(tollgate, "tollgate_requests_total").await;
        }
        self.assert_decided(decided).await;
    }

    /// As above for a stack whose first tollgate has ended and taken its metrics along: of that one, Envoy
    /// says how often it answered.
    pub async fn assert_nothing_was_bypassed_without_the_first(&self) {
        let [first, second] = &self.tollgates;
        let decided = self.envoy.answered_by(first.at.grpc).await
            + metric_of(second, "tollgate_requests_total").await;
        self.assert_decided(decided).await;
    }

    async fn assert_decided(&self, decided: u64) {
        let stats = self.envoy.stats().await;
        let stat = |name: &str| stats.get(name).copied().unwrap_or(0);
        let said = || {
            let of = |name: &str| name.contains("ratelimit.") && !name.contains("health_check");
            let nonzero = stats.iter().filter(|(name, value)| of(name) && **value > 0);
            let tollgates = self.tollgates.each_ref().map(|tollgate| tollgate.log().join("\n"));
            format!(
                "{:#?}\n{}\n{}",
                nonzero.collect::<Vec<_>>(),
                self.envoy.said(),
                tollgates.join("\n")
            )
        };
        for failure in ["error", "failure_mode_allowed"] {
            let count = stat(&format!("cluster.backends.ratelimit.{failure}"));
            assert_eq!(count, 0, "ratelimit.{failure}\n{}", said());
        }
        let asked =
            stat("cluster.backends.ratelimit.ok") + stat("cluster.backends.ratelimit.over_limit");
        assert_eq!(asked, self.sent.load(Ordering::Relaxed), "asked, sent\n{}", said());
        let most = asked + stat("cluster.ratelimit.upstream_rq_retry");
        assert!((asked..=most).contains(&decided), "{decided} decided of {asked}\n{}", said());
    }
}

/// `text` with what is there once replaced.
fn edited(text: &str, (shipped, instead): (&str, &str)) -> String {
    assert_eq!(text.matches(shipped).count(), 1, "{shipped:?} in deploy/policies/edge.yaml");
    text.replace(shipped, instead)
}

/// The sum of an instrument's series.
pub async fn metric_of(tollgate: &Tollgate, name: &str) -> u64 {
    let text = Caller::of(tollgate.at.http).get("/metrics").await.unwrap().text();
    let value = |line: &str| {
        let rest = line.strip_prefix(name)?;
        let (labels, value) = rest.rsplit_once(' ')?;
        (labels.is_empty() || labels.starts_with('{')).then(|| value.parse::<u64>().unwrap())
    };
    let series: Vec<u64> = text.lines().filter_map(value).collect();
    assert!(!series.is_empty(), "no {name} in\n{text}");
    series.iter().sum()
}
