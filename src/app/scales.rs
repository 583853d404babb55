//! The rules that are turned to a part of their limits, in a metric.

use crate::domain::WHOLE;
use crate::limiter::Shared;
use crate::telemetry::escape::escape;

/// The most rules in the metric.
const MAX_SERIES: usize = 1_000;

/// Shows the rules that are turned now.
pub(super) fn show(shared: &Shared) {
    let turned = shared.policies.scales.in_force(shared.resolver.clients.now());
    let series = turned.into_iter().take(MAX_SERIES).map(|((domain, rule), turned)| {
        let name = |text: &str| escape(text.as_bytes()).to_string();
        (name(&domain), name(&rule), f64::from(turned.per_mille) / f64::from(WHOLE))
    });
    shared.metrics.policies.show_scales(series);
}
