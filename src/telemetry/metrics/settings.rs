//! The settings of metrics.

use crate::settings::{Ratio, Reader, section, words};

section! {
    /// Metrics.
    pub struct MetricsSettings in "metrics" {
        /// Names of the series: `tollgate`, `reference` (those of envoyproxy/ratelimit) or `both`.
        /// Those of the process are always there.
        names: Names = "tollgate",
        /// Maximum of rules and limits whose labels come from requests. Beyond it, requests count
        /// under their rule.
        max_series: usize = "1000" in 1..,
        /// Part of a limit from which on decisions and hits count as near it.
        near_limit_ratio: Ratio = "0.8",
        /// Maximum of series of `tollgate_top_denials`, whose labels are descriptors; 0 = none.
        top_series: usize = "10" in 0..=1_000,
        /// Path of the metrics on the listener of `http.metrics_listen`.
        path: String = "/metrics",
    }
}

/// The families of names.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Names {
    /// Those that begin with `tollgate`.
    #[default]
    Tollgate,
    /// Those of envoyproxy/ratelimit.
    Reference,
    /// Both.
    Both,
}

words!(Names { "tollgate" => Tollgate, "reference" => Reference, "both" => Both });

impl Names {
    /// True if names of tollgate's own are among them.
    pub(super) const fn have_tollgate(self) -> bool {
        !matches!(self, Self::Reference)
    }

    /// True if those of envoyproxy/ratelimit are among them.
    pub(super) const fn have_reference(self) -> bool {
        !matches!(self, Self::Tollgate)
    }
}

impl MetricsSettings {
    /// The rules of its values.
    pub(crate) fn resolve(&self, reader: &mut Reader) {
        let fits = |c: char| c.is_ascii_alphanumeric() || "/-._~".contains(c);
        if !self.path.starts_with('/') || !self.path.chars().all(fits) {
            let message = format!("found {:?}, expected a path such as /metrics", self.path);
            reader.refuse("metrics.path", message);
        }
    }
}
