//! The sections of the gRPC edge: its listener, and the additions of a response.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use http::HeaderName;

use crate::edge::listener::tls::settings::GrpcTlsSettings;
use crate::edge::listener::{Bounds, ListenerSettings};
use crate::settings::{Reader, SOME_TIME, section, words};

section! {
    /// The gRPC listener: rate limit decisions, health, reflection.
    pub struct GrpcSettings in "grpc" {
        /// Address and port. Port 0 takes any free port, on each listener.
        listen: SocketAddr = "0.0.0.0:8081",
        /// Number of threads that decide; 0 = one per available core.
        cores: usize = "0" in 0..=1_024,
        /// `per_core` = each thread has its own runtime, connections and store connection; `shared`
        /// = one runtime over all threads, for few connections with unequal load.
        runtime: RuntimeShape = "per_core",
        /// The server of HTTP/2: `lean`, which is made for decisions, or `hyper`, which takes
        /// several times the CPU time.
        engine: Engine = "lean",
        /// Approximate age at which a connection is closed with GOAWAY, so that callers spread
        /// again; 0s = never. Calls have `drain_timeout` to finish.
        max_connection_age: Option<Duration> = "30m",
        /// On shutdown: time to serve on after health turns to `NOT_SERVING`.
        drain_delay: Duration = "500ms",
        /// Time for calls to finish, on shutdown and at the maximum age of a connection.
        drain_timeout: Duration = "10s",
        /// Interval of HTTP/2 pings on a connection.
        keepalive_interval: Duration = "30s" in SOME_TIME..,
        /// Time for the answer to a ping. Without one, the connection is closed.
        keepalive_timeout: Duration = "10s" in SOME_TIME..,
    }
    with {
        /// TLS.
        tls: GrpcTlsSettings,
    }
}

/// The division of work between the threads that decide.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RuntimeShape {
    /// Each has a runtime of its own.
    PerCore,
    /// One runtime over all of them.
    Shared,
}

words!(RuntimeShape { "per_core" => PerCore, "shared" => Shared });

/// The server of HTTP/2.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Engine {
    /// tollgate's own.
    Lean,
    /// That of the `hyper` crate.
    Hyper,
}

words!(Engine { "lean" => Lean, "hyper" => Hyper });

impl GrpcSettings {
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

    /// The bounds of a connection of the `index`-th runtime. The ages differ a little between
    /// runtimes, so that not all connections end at once.
    pub fn bounds(&self, listener: &ListenerSettings, index: usize) -> Bounds {
        let runtimes = self.runtimes().max(1) as f64;
        let spread = |age: Duration| age.mul_f64(0.9 + 0.2 * (index as f64 + 0.5) / runtimes);
        Bounds {
            listener: listener.clone(),
            max_age: self.max_connection_age.map(spread),
            grace: self.drain_timeout,
            keepalive_interval: self.keepalive_interval,
            keepalive_timeout: self.keepalive_timeout,
        }
    }

    /// An age of zero is none.
    pub(crate) fn resolve(&mut self, reader: &mut Reader) {
        self.tls.resolve(reader);
        if !self.tls.domain_san.is_empty() && self.tls.client_ca_file.is_none() {
            let message = "has no effect without grpc.tls.client_ca_file";
            reader.refuse("grpc.tls.domain_san", message);
        }
        self.max_connection_age = self.max_connection_age.filter(|age| !age.is_zero());
    }
}

section! {
    /// Additions of a response to the decision.
    pub struct ResponseSettings in "response" {
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

impl ResponseSettings {
    /// No two headers have the same name.
    pub(crate) fn resolve(&self, reader: &mut Reader) {
        let headers = [
            ("response.limit_header", &self.limit_header),
            ("response.remaining_header", &self.remaining_header),
            ("response.reset_header", &self.reset_header),
        ];
        for (index, (key, name)) in headers.iter().enumerate() {
            if let Some((other, _)) = headers.iter().take(index).find(|(_, other)| other == name) {
                reader.refuse(key, format!("{name} is the name of {other} too"));
            }
        }
    }
}

/// The headers that a response asks Envoy to add.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum HeaderStyle {
    /// None.
    #[default]
    Off,
    /// Limit, remaining and reset of the limit closest to its end.
    Reference,
    /// `RateLimit` and `RateLimit-Policy`, with every limit.
    Draft,
}

words!(HeaderStyle { "off" => Off, "reference" => Reference, "draft" => Draft });
