//! The settings of what callers are advised to do: when to come back after a denial.
//!
//! Advice changes no decision.

use http::HeaderName;

use crate::settings::{section, words};

section! {
    /// Advice to callers.
    pub struct AdviceSettings in "limits" {
        /// The wait that a denied caller is told: `slots` = callers of one counter are told
        /// different times, one after the other at the rate of the limit; `off` = each is told the
        /// time at which its hits fit, which is the same for all.
        retry_spread: RetrySpread = "slots",
        /// Request header that tells Envoy's fault filter how many milliseconds a request waits, by
        /// `max_wait` of its limits. Empty = none.
        delay_header: Option<HeaderName> = "x-envoy-fault-delay-request",
    }
}

/// The spread of the waits that denied callers are told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RetrySpread {
    /// One slot after the other.
    Slots,
    /// None.
    Off,
}

words!(RetrySpread { "slots" => Slots, "off" => Off });
