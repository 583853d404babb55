//! The defaults of the personality, where they differ from those of tollgate.

use crate::config::layer::Layer;

/// The origin of a default of the personality.
const ORIGIN: &str = "default of --compat ratelimit";

/// Setting and default.
pub(super) const DEFAULTS: &[(&str, &str)] = &[
    // Limits, and what is read of them.
    ("policies.default_algorithm", "fixed_window"),
    ("policies.default_charge", "settled"),
    ("policies.lenient", "true"),
    // Not without limits after a restart beside that of the control plane.
    ("xds.keep_last", "true"),
    // As without an answer: the caller's `failure_mode_deny` decides.
    ("store.on_failure", "error"),
    // A Redis in another zone, or under load, takes up to 50 ms. Callers that wait less are
    // answered within four fifths of their time.
    ("store.deadline", "1s"),
    // A request beyond a bound is denied, and generated rules may have 256 descriptors of 1150
    // entries.
    ("bounds.message_bytes", "4194304"),
    ("bounds.descriptors", "2048"),
    ("bounds.entries", "2048"),
    ("bounds.key_bytes", "8192"),
    ("bounds.value_bytes", "65536"),
    ("bounds.limits", "2048"),
    // All addresses, also where there is IPv6 alone.
    ("grpc.listen", "[::]:8081"),
    ("http.listen", "[::]:8080"),
    ("debug.listen", "[::]:6070"),
    // The time until a readiness probe has noticed.
    ("grpc.drain_delay", "5s"),
    ("response.dynamic_metadata", "false"),
    // Every caller is told the time at which its hits fit.
    ("limits.retry_spread", "off"),
    ("metrics.names", "both"),
    // Beside the listener of its own, if there is one.
    ("http.metrics", "true"),
    // Not expected by those who swap the image.
    ("http.status", "false"),
    ("log.level", "warn"),
];

pub(super) fn layer() -> Layer {
    let mut layer = Layer::default();
    for (setting, value) in DEFAULTS {
        layer.put(setting, ORIGIN, *value);
    }
    layer
}
