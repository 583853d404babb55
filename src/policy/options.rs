//! The settings of policies: where they are, and what their files leave open.

use std::path::PathBuf;

use super::words::{AlgorithmName, ChargeName, Defaults};
use crate::settings::section;

section! {
    /// Policies: the limits, and the requests that they apply to.
    pub struct Options in "policies" {
        /// A YAML file or a directory of YAML files; unset = a built-in example, or with
        /// `xds.server` no file.
        path: Option<PathBuf> = "",
        /// true = read policies as envoyproxy/ratelimit does: every file of the directory, which
        /// may be missing; what it accepts is a warning, and faults at the start do not end the
        /// process. false = `*.yaml` and `*.yml`; what is probably a mistake is a fault.
        lenient: bool = "false",
        /// Algorithm of limits that name none: `sliding_window`, `token_bucket` or `fixed_window`.
        default_algorithm: AlgorithmName = "sliding_window",
        /// Charge of limits that name none: `admitted`, `always` or `settled`.
        default_charge: ChargeName = "admitted",
        /// true = every descriptor is in quota mode, those of clients and overrides too.
        quota_mode: bool = "false",
        /// true = fixed windows of a month follow the calendar in UTC; false = they last 30 days.
        calendar_months: bool = "false",
        /// true = several files may add to the same domain; false = that is a fault.
        merge_domains: bool = "false",
        /// true = serve before the first policies are there; calls fail until then. false = wait
        /// for the first response of `xds.server` before the gRPC port opens.
        start_without: bool = "false",
        /// true = a reload may leave no policy at all; false = such a reload is refused, and the
        /// policies in force stay.
        allow_empty: bool = "false",
    }
}

impl Options {
    /// Defaults for policies.
    pub const fn defaults(&self) -> Defaults {
        Defaults {
            algorithm: self.default_algorithm,
            charge: self.default_charge,
            quota: self.quota_mode,
            calendar_months: self.calendar_months,
        }
    }
}
