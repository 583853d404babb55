//! Settings: resolved, valid, documented.
//!
//! ```text
//! defaults < file (YAML) < environment (TOLLGATE__SECTION__KEY) < flags
//!    raw     what each source says, known keys only
//!    read    text -> typed values, with the origin of each
//!    load    secrets from files, rules between settings -> Settings
//! ```
//! All faults are reported at once. Policies are not settings; they have files of their own. Adding a setting
//! is adding a field here: type, default, meaning, `print-config` and the variable's name follow from it.

mod fault;
mod load;
mod print;
mod raw;
mod read;
mod secret;
mod section;
#[cfg(test)]
mod tests;
mod value;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderName;

pub use self::fault::{Fault, Faults};
pub use self::load::{Loaded, Sources, load};
pub use self::secret::{RedisUrl, Secret};
pub use self::section::{Key, Section};

use self::read::Reader;
use self::section::section;
use self::value::Setting;
use crate::edge::grpc::headers::HeaderStyle;
use crate::limiter::mode::{Mode, ModeLayer};
use crate::policy::{AlgorithmName, OnStoreFailure, Options};
use crate::telemetry::logs::{Format, Level};

/// Everything that can be set.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Keys outside of any section.
    pub general: General,
    /// The gRPC listener and its connections.
    pub grpc: Grpc,
    /// The admin listener.
    pub admin: Admin,
    /// The HTTP listener.
    pub http: Http,
    /// Policies.
    pub policies: Policies,
    /// Redis.
    pub redis: Redis,
    /// Decisions and the store.
    pub store: Store,
    /// Remembered denials.
    pub deny_cache: DenyCache,
    /// How large a request may be.
    pub bounds: Bounds,
    /// What a peer may take of a listener.
    pub listeners: Listeners,
    /// What responses carry.
    pub response: Response,
    /// Metrics.
    pub metrics: Metrics,
    /// Logs.
    pub log: Log,
}

impl Settings {
    /// Every section, in the order of `print-config`.
    pub const SECTIONS: &'static [Section] = &[
        General::SECTION,
        Grpc::SECTION,
        Admin::SECTION,
        Http::SECTION,
        Policies::SECTION,
        Redis::SECTION,
        Store::SECTION,
        DenyCache::SECTION,
        Bounds::SECTION,
        Listeners::SECTION,
        Response::SECTION,
        Metrics::SECTION,
        Log::SECTION,
    ];

    /// Reads every section before it gives up, so that all faults are known.
    fn read(reader: &mut Reader) -> Option<Self> {
        let general = General::read(reader);
        let grpc = Grpc::read(reader);
        let admin = Admin::read(reader);
        let http = Http::read(reader);
        let policies = Policies::read(reader);
        let redis = Redis::read(reader);
        let store = Store::read(reader);
        let deny_cache = DenyCache::read(reader);
        let bounds = Bounds::read(reader);
        let listeners = Listeners::read(reader);
        let response = Response::read(reader);
        let metrics = Metrics::read(reader);
        let log = Log::read(reader);
        Some(Self {
            general: general?,
            grpc: grpc?,
            admin: admin?,
            http: http?,
            policies: policies?,
            redis: redis?,
            store: store?,
            deny_cache: deny_cache?,
            bounds: bounds?,
            listeners: listeners?,
            response: response?,
            metrics: metrics?,
            log: log?,
        })
    }

    /// What the settings say of the kill switch.
    pub fn modes(&self) -> ModeLayer {
        let own = self.general.modes.iter();
        ModeLayer {
            global: Some(self.general.mode),
            domains: own.map(|(domain, mode)| (Bytes::from(domain.clone()), *mode)).collect(),
        }
    }
}

section! {
    /// The whole service.
    pub struct General in "" {
        /// Kill switch: `enforce`; `shadow` = count and report, but deny nothing; `off` = let all
        /// requests pass, uncounted.
        mode: Mode = "enforce",
        /// Modes of single domains, such as `{edge: shadow}`. They take precedence over `mode`. In
        /// the file only.
        modes: BTreeMap<String, Mode> = "",
        /// Directory for state that survives a restart.
        data_dir: PathBuf = "data",
        /// Key of the hash that replaces values marked `sensitive`. The same on every replica.
        sensitive_key: Option<Secret> = "",
        /// File that holds `sensitive_key`. An alternative to it.
        sensitive_key_file: Option<PathBuf> = "",
    }
}

section! {
    /// The gRPC listener: rate limit decisions, health, reflection.
    pub struct Grpc in "grpc" {
        /// Address and port. Port 0 takes any free port, on each listener.
        listen: SocketAddr = "0.0.0.0:8081",
        /// Number of threads that decide; 0 = one per available core.
        cores: usize = "0",
        /// `per_core` = each thread has its own runtime, connections and store connection; `shared`
        /// = one runtime over all threads, for few connections with unequal load.
        runtime: RuntimeShape = "per_core",
        /// Approximate age at which a connection is closed with GOAWAY, so that callers spread
        /// again; 0s = never.
        max_connection_age: Option<Duration> = "30m",
        /// On shutdown: time to serve on after health turns to `NOT_SERVING`.
        drain_delay: Duration = "500ms",
        /// On shutdown: time for calls to finish after that.
        drain_timeout: Duration = "10s",
        /// Interval of HTTP/2 pings on a connection.
        keepalive_interval: Duration = "30s",
        /// Time for the answer to a ping. Without one, the connection is closed.
        keepalive_timeout: Duration = "10s",
    }
}

/// How the threads that decide share their work.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RuntimeShape {
    /// Each has a runtime of its own.
    PerCore,
    /// One runtime over all of them.
    Shared,
}

impl Grpc {
    /// The number of threads: `cores`, or one per core that this process may use.
    pub fn threads(&self) -> usize {
        match self.cores {
            0 => thread::available_parallelism().map_or(1, usize::from),
            cores => cores,
        }
    }

    /// The number of runtimes over these threads.
    pub fn runtimes(&self) -> usize {
        match self.runtime {
            RuntimeShape::PerCore => self.threads(),
            RuntimeShape::Shared => 1,
        }
    }
}

section! {
    /// The admin listener, gRPC.
    pub struct Admin in "admin" {
        /// Address and port. Beyond loopback it requires a token.
        listen: SocketAddr = "127.0.0.1:8082",
        /// Token that callers send as `authorization: Bearer TOKEN`; unset = no authentication.
        token: Option<Secret> = "",
        /// File that holds `token`. An alternative to it.
        token_file: Option<PathBuf> = "",
    }
}

section! {
    /// The HTTP listener: /json, /healthcheck, /livez, /readyz, /metrics.
    pub struct Http in "http" {
        /// Address and port.
        listen: SocketAddr = "0.0.0.0:8080",
    }
}

section! {
    /// Policies: the limits, and the requests that they apply to.
    pub struct Policies in "policies" {
        /// A YAML file or a directory of YAML files; unset = a built-in example.
        path: Option<PathBuf> = "",
        /// Algorithm of limits that name none: `sliding_window`, `token_bucket` or `fixed_window`.
        default_algorithm: AlgorithmName = "sliding_window",
        /// true = several files may add to the same domain; false = that is a fault.
        merge_domains: bool = "false",
    }
}

impl Policies {
    /// What the policy files leave open.
    pub fn options(&self) -> Options {
        Options { default_algorithm: self.default_algorithm, merge_domains: self.merge_domains }
    }
}

section! {
    /// Redis, which shares counters between replicas.
    pub struct Redis in "redis" {
        /// `redis://[user][:password@]host[:port][/database]`; unset = counters in the memory of
        /// this process.
        url: Option<RedisUrl> = "",
        /// File that holds `url`. An alternative to it.
        url_file: Option<PathBuf> = "",
        /// Prefix of every key.
        key_prefix: String = "tollgate:",
        /// Maximum of batches in flight to Redis, per thread; 1 to 64.
        frames_in_flight: usize = "2",
        /// Maximum of limits in a batch of several requests; 1 to 1000, where 1 = a batch for each
        /// request.
        frame_limits: usize = "64",
        /// Time to connect.
        connect_timeout: Duration = "1s",
        /// Silence of Redis after which the connection counts as broken.
        response_timeout: Duration = "500ms",
    }
}

section! {
    /// Decisions and the store that counts.
    pub struct Store in "store" {
        /// Time to decide. A caller's shorter deadline takes precedence.
        deadline: Duration = "10ms",
        /// Decision while the store does not answer: `allow` or `deny`.
        on_failure: OnStoreFailure = "allow",
        /// Maximum of counters in memory.
        memory_max_keys: usize = "1000000",
    }
}

section! {
    /// The deny cache: denials of the last second, repeated without Redis.
    pub struct DenyCache in "deny_cache" {
        /// Approximate number of counters per process; 0 = off. Not used in memory mode.
        max_keys: usize = "16384",
    }
}

section! {
    /// Bounds of a request. A larger request is over its limit, not an error.
    pub struct Bounds in "bounds" {
        /// Bytes of a message.
        message_bytes: usize = "65536",
        /// Descriptors of a request.
        descriptors: usize = "128",
        /// Entries of a descriptor.
        entries: usize = "16",
        /// Bytes of an entry's key.
        key_bytes: usize = "1024",
        /// Bytes of an entry's value.
        value_bytes: usize = "8192",
        /// Limits that a request meets, over all its descriptors. A limit costs Redis about 6 µs.
        limits: usize = "512",
    }
}

section! {
    /// Bounds of the gRPC, admin and HTTP listeners. Each listener counts by itself.
    pub struct Listeners in "listeners" {
        /// Open connections of a listener; one more is closed at once.
        max_connections: usize = "10000",
        /// Open connections from one address. Envoy keeps one connection per worker.
        max_connections_per_peer: usize = "1000",
        /// Concurrent calls on one HTTP/2 connection. Envoy opens another connection when it needs more.
        max_streams: usize = "1024",
        /// Bytes of the headers of one request over HTTP/2.
        max_header_bytes: usize = "262144",
        /// Time for the HTTP/2 preface of a new connection, or for the headers of an HTTP/1 request.
        handshake_timeout: Duration = "10s",
        /// Time for the message of a call, or the body of a request, to arrive.
        message_timeout: Duration = "10s",
    }
}

section! {
    /// Additions of a response to the decision.
    pub struct Response in "response" {
        /// Dynamic metadata that names the rules that decided.
        dynamic_metadata: bool = "true",
        /// Headers: `off`; `reference` = the three below; `draft` = `RateLimit` and
        /// `RateLimit-Policy`.
        headers: HeaderStyle = "off",
        /// Name of the header with the limit.
        limit_header: HeaderName = "ratelimit-limit",
        /// Name of the header with the hits left.
        remaining_header: HeaderName = "ratelimit-remaining",
        /// Name of the header with the seconds until reset.
        reset_header: HeaderName = "ratelimit-reset",
    }
}

section! {
    /// Metrics.
    pub struct Metrics in "metrics" {
        /// Maximum of series whose labels come from requests. Beyond it, requests count
        /// in the series of their rule.
        max_series: usize = "1000",
    }
}

section! {
    /// Logs, on standard error.
    pub struct Log in "log" {
        /// off, error, warn, info, debug, trace, or directives such as
        /// `info,tollgate::store=debug`.
        level: Level = "info",
        /// `auto` = text on a terminal, otherwise json; `text`; `json`.
        format: Format = "auto",
    }
}
