//! Settings: resolved, valid, documented.
//!
//! ```text
//! defaults < file (YAML) < environment (TOLLGATE__SECTION__KEY) < flags
//!    compat  variables and defaults of another service, between defaults and file
//!    layer   what each source says, known keys only
//!    load    merged, read section by section, rules between sections -> Settings
//! ```
//! All faults are reported at once. Policies are not settings; they have files of their own. Each
//! room declares its own section, with type, default and meaning of each setting; `print-config`,
//! the docs and the names of the variables follow from it. This room loads them.

mod compat;
mod keys;
mod layer;
mod load;
mod print;
mod service;
mod sources;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;

pub use self::compat::Remark;
pub use self::load::{Loaded, load};
pub use self::service::Compat;
pub use self::sources::Sources;
pub use crate::settings::{Fault, Faults, Headers, HostPort, Key, Pairs, Ratio, Secret, Section};

use crate::control::feeds::xds::settings::XdsSettings;
use crate::edge::admin::AdminSettings;
use crate::edge::grpc::settings::{GrpcSettings, ResponseSettings};
use crate::edge::health::HealthSettings;
use crate::edge::http::HttpSettings;
use crate::edge::http::debug::DebugSettings;
use crate::edge::listener::ListenerSettings;
use crate::limiter::advice::AdviceSettings;
use crate::limiter::events::EventSettings;
use crate::limiter::holds::HoldSettings;
use crate::limiter::layers::deny_cache::DenyCacheSettings;
use crate::limiter::layers::failover::{FailoverSettings, StoreSettings};
use crate::limiter::mode::{Mode, ModeLayer};
use crate::limiter::request::Bounds;
use crate::policy::Options;
use crate::redis::RedisSettings;
use crate::settings::{Reader, section};
use crate::telemetry::logs::LogSettings;
use crate::telemetry::metrics::MetricsSettings;
use crate::telemetry::statsd::StatsdSettings;
use crate::telemetry::traces::settings::TraceSettings;

/// Declares [`Settings`]: every section, in the order of `print-config`.
macro_rules! settings {
    ($($(#[doc = $doc:literal])+ $name:ident: $section:ty,)+) => {
        /// Everything that can be set.
        #[derive(Clone, Debug, Default)]
        pub struct Settings {
            $($(#[doc = $doc])+ pub $name: $section,)+
        }

        impl Settings {
            /// Every section, in the order of `print-config`.
            pub const SECTIONS: &'static [Section] = &[$(<$section>::SECTION),+];

            /// Reads every section before it gives up, so that all faults are known.
            fn read(reader: &mut Reader) -> Option<Self> {
                $(let $name = <$section>::read(reader);)+
                Some(Self { $($name: $name?),+ })
            }

            /// The dotted keys whose values differ in `other`.
            pub fn changed(&self, other: &Self) -> Vec<String> {
                let mut keys = Vec::new();
                $(self.$name.changed(&other.$name, &mut keys);)+
                keys
            }
        }
    };
}

settings! {
    /// Keys outside of any section.
    general: General,
    /// The gRPC listener and its connections.
    grpc: GrpcSettings,
    /// The admin listener.
    admin: AdminSettings,
    /// The HTTP listener.
    http: HttpSettings,
    /// Health.
    health: HealthSettings,
    /// The debug listener.
    debug: DebugSettings,
    /// Policies.
    policies: Options,
    /// The control plane.
    xds: XdsSettings,
    /// Redis.
    redis: RedisSettings,
    /// Decisions and the store.
    store: StoreSettings,
    /// Shares of limits.
    failover: FailoverSettings,
    /// Remembered denials.
    deny_cache: DenyCacheSettings,
    /// Advice to callers.
    limits: AdviceSettings,
    /// The largest request.
    bounds: Bounds,
    /// Bounds of every listener.
    listeners: ListenerSettings,
    /// Additions of a response to the decision.
    response: ResponseSettings,
    /// Metrics.
    metrics: MetricsSettings,
    /// Events of limits.
    events: EventSettings,
    /// Holds.
    holds: HoldSettings,
    /// Statistics to a statsd server.
    statsd: StatsdSettings,
    /// Traces.
    traces: TraceSettings,
    /// Logs.
    log: LogSettings,
}

impl Settings {
    /// The kill switch by the settings.
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
        /// `ratelimit` = stand in for envoyproxy/ratelimit: read its variables, with its defaults;
        /// `none` = tollgate as itself. A program of the name `ratelimit` stands in for it, too.
        compat: Compat = "none",
        /// Directory for state that survives a restart.
        data_dir: PathBuf = "data",
        /// Key of the hash that replaces values marked `sensitive`. The same on every replica.
        sensitive_key: Option<Secret> = "",
        /// File that holds `sensitive_key`. An alternative to it.
        sensitive_key_file: Option<PathBuf> = "",
    }
}

impl General {
    fn resolve(&mut self, reader: &mut Reader) {
        let file = self.sensitive_key_file.as_deref();
        reader.file("sensitive_key", &mut self.sensitive_key, file);
    }
}
