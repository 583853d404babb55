//! Lines of logs and spans: those written, and those dropped.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::telemetry::sharded::ShardedCounter;

/// The lines and spans of the process.
#[derive(Debug, Default)]
pub struct OutputMetrics {
    /// Lines that were not written.
    pub lines_dropped: LineMetrics,
    /// Spans.
    pub spans: SpanMetrics,
}

/// Lines that were not written, by log.
#[derive(Clone, Debug, Default)]
pub struct LineMetrics {
    /// The main log.
    pub main: ShardedCounter,
    /// Lines of denials.
    pub denied: ShardedCounter,
    /// Audit lines.
    pub audit: ShardedCounter,
}

/// Ended spans.
#[derive(Clone, Debug, Default)]
pub struct SpanMetrics {
    /// Those that the collector took.
    pub exported: ShardedCounter,
    /// Those that did not reach it.
    pub dropped: ShardedCounter,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct LogLabel {
    log: &'static str,
}

impl OutputMetrics {
    /// The metrics, registered.
    pub(super) fn registered(registry: &mut Registry) -> Self {
        let lines: Family<LogLabel, ShardedCounter> = Family::default();
        let of = |log| lines.get_or_create_owned(&LogLabel { log });
        let lines_dropped =
            LineMetrics { main: of("main"), denied: of("denied"), audit: of("audit") };
        registry.register("log_lines_dropped", "Lines that were not written, by log", lines);
        let spans = SpanMetrics::default();
        registry.register(
            "spans_exported",
            "Spans that the collector took",
            spans.exported.clone(),
        );
        registry.register(
            "spans_dropped",
            "Spans that did not reach the collector",
            spans.dropped.clone(),
        );
        Self { lines_dropped, spans }
    }
}
