//! The settings of policies: where they are, and what their files leave open.

use std::path::PathBuf;

use super::words::AlgorithmName;
use crate::settings::section;

section! {
    /// Policies: the limits, and the requests that they apply to.
    pub struct Options in "policies" {
        /// A YAML file or a directory of YAML files; unset = a built-in example.
        path: Option<PathBuf> = "",
        /// Algorithm of limits that name none: `sliding_window`, `token_bucket` or `fixed_window`.
        default_algorithm: AlgorithmName = "sliding_window",
        /// true = several files may add to the same domain; false = that is a fault.
        merge_domains: bool = "false",
        /// true = a reload may leave no policy at all; false = such a reload is refused, and the
        /// policies in force stay.
        allow_empty: bool = "false",
    }
}
