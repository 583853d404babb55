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
mod format;
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
    /// What holds for the whole service.
    pub struct General in "" {
        /// Kill switch: `enforce`; `shadow` = count and report but deny nothing; `off` = let all pass,
        /// uncounted.
        mode: Mode = "enforce",
        /// Modes of single domains, which go before `mode`, such as `{edge: shadow}`. In the file only.
        modes: BTreeMap<String, Mode> = "",
        /// Directory for state that outlives a restart.
        data_dir: PathBuf = "data",
        /// Key of the hash that stands for values marked `sensitive`. The same on every replica.
        sensitive_key: Option<Secret> = "",
        /// File that holds `sensitive_key`, instead of it.
        sensitive_key_file: Option<PathBuf> = "",
    }
}

section! {
    /// The gRPC listener: rate limit decisions, health, reflection.
    pub struct Grpc in "grpc" {
        /// Address and port; port 0 takes any free one, here and below.
        listen: SocketAddr = "0.0.0.0:8081",
        /// Threads that decide; 0 = one per available core.
        cores: usize = "0",
        /// `per_core` = each thread has its own runtime, connections and store connection; `shared` = one runtime over
        /// all, for few connections that are far from equally busy.
        runtime: RuntimeShape = "per_core",
        /// Connections are closed politely at about this age, so that callers spread out again; 0s = never.
        max_connection_age: Option<Duration> = "30m",
        /// On shutdown: how long to serve on after health says `NOT_SERVING`.
        drain_delay: Duration = "500ms",
        /// On shutdown: how long calls may take to finish after that.
        drain_timeout: Duration = "10s",
        /// How often an idle connection is asked whether it is alive.
        keepalive_interval: Duration = "30s",
        /// How long the answer may take before the connection is closed.
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
        /// Address and port; beyond loopback only with a token.
        listen: SocketAddr = "127.0.0.1:8082",
        /// What callers send as `authorization: Bearer TOKEN`; unset = nobody is asked.
        token: Option<Secret> = "",
        /// File that holds `token`, instead of it.
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
    /// Policies: which limits apply to which requests.
    pub struct Policies in "policies" {
        /// A YAML file, or a directory of them; unset = a built-in example.
        path: Option<PathBuf> = "",
        /// Algorithm of limits that name none: `sliding_window`, `token_bucket` or `fixed_window`.
        default_algorithm: AlgorithmName = "sliding_window",
        /// Whether several files may add to the same domain; false = that is a fault.
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
        /// `redis://[user][:password@]host[:port][/database]`; unset = count in memory, this process alone.
        url: Option<RedisUrl> = "",
        /// File that holds `url`, instead of it.
        url_file: Option<PathBuf> = "",
        /// What every key begins with.
        key_prefix: String = "tollgate:",
        /// Batches on their way to Redis at a time, per thread; 1 to 64.
        frames_in_flight: usize = "2",
        /// The most limits in a batch of several requests; 1 = a batch for each request; 1 to 1000.
        frame_limits: usize = "64",
        /// How long connecting may take.
        connect_timeout: Duration = "1s",
        /// How long Redis may stay silent before the connection counts as broken.
        response_timeout: Duration = "500ms",
    }
}

section! {
    /// Decisions and the store that counts.
    pub struct Store in "store" {
        /// How long a decision may take; never longer than the caller's own deadline.
        deadline: Duration = "10ms",
        /// What requests get while the store does not answer: `allow` or `deny`.
        on_failure: OnStoreFailure = "allow",
        /// The most counters kept in memory.
        memory_max_keys: usize = "1000000",
    }
}

section! {
    /// Denials that are remembered, so that what cannot pass yet is not asked of Redis again.
    pub struct DenyCache in "deny_cache" {
        /// About how many counters, in each process; 0 = none. Not used in memory mode.
        max_keys: usize = "16384",
    }
}

section! {
    /// How large a request may be; a larger one is over its limit, not an error.
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
    }
}

section! {
    /// What responses carry besides the decision.
    pub struct Response in "response" {
        /// Whether dynamic metadata says which rule decided.
        dynamic_metadata: bool = "true",
        /// Headers: `off`; `reference` = the three below; `draft` = `RateLimit` and `RateLimit-Policy`.
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
        /// The most series whose labels come from requests; what is beyond counts together.
        max_series: usize = "1000",
    }
}

section! {
    /// Logs, on standard error.
    pub struct Log in "log" {
        /// off, error, warn, info, debug, trace, or directives such as `info,tollgate::store=debug`.
        level: Level = "info",
        /// `auto` = text on a terminal, else json; `text`; `json`.
        format: Format = "auto",
    }
}
