//! The counts of envoyproxy/ratelimit, under its names: for Prometheus here, for statsd in
//! [`crate::telemetry::statsd`].
//!
//! Names have no suffix `_total`, as its statsd exporter gives none. OpenMetrics demands one for a
//! counter, so the type of the series is `unknown`.
//!
//! Source: envoyproxy/ratelimit, `src/stats` (names), and the mapping of its statsd exporter
//! (series, labels, buckets).

use std::collections::BTreeMap;
use std::fmt;

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::by_label::{Budget, ByDomain, Detailed};
use super::decisions::LimitOf;
use super::hits::{HitSplit, KINDS, MetricKey, RuleHits};
use super::totals::Totals;
use crate::telemetry::escape::escape;
use crate::telemetry::sharded::{Bounds, Distribution, DurationHistogram, ShardedCounter};

/// The one method that callers of rate limits call.
const METHOD: &str = "ShouldRateLimit";

/// The buckets of response times. Those from 5 ms on are those of envoyproxy/ratelimit; statsd gets
/// the others, too.
const BUCKETS: Bounds = [
    100_000,
    250_000,
    500_000,
    1_000_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// The buckets below those of envoyproxy/ratelimit.
const FINER_BUCKETS: usize = 4;

/// The counts of envoyproxy/ratelimit.
#[derive(Debug)]
pub struct ReferenceMetrics {
    /// Time from the message of a gRPC call to its answer.
    pub response_time: DurationHistogram,
    /// Requests over a limit that pass by the kill switch.
    pub global_shadow_mode: ShardedCounter,
    rules: Mutex<BTreeMap<MetricKey, RuleHits>>,
    overrides: Detailed<RuleHits>,
    more_overrides: ByDomain<RuleHits>,
    totals: Totals,
}

impl ReferenceMetrics {
    pub(super) fn new(budget: Budget, totals: Totals) -> Self {
        Self {
            response_time: DurationHistogram::with_bounds(&BUCKETS),
            global_shadow_mode: ShardedCounter::default(),
            rules: Mutex::default(),
            overrides: Detailed::new(budget),
            more_overrides: ByDomain::default(),
            totals,
        }
    }

    /// The counters of the rule of `domain` at the end of `nodes`.
    pub(super) fn rule(&self, domain: &str, nodes: impl IntoIterator<Item = String>) -> RuleHits {
        self.rules.lock().entry(MetricKey::new(domain, nodes)).or_default().clone()
    }

    /// Counts the hits of a descriptor of `domain` that brings its limit along and that no rule
    /// matches: by its entries, and beyond the maximum of series by its domain.
    ///
    /// # Concurrency
    /// Takes a lock that only descriptors of the same shard share.
    pub fn of_override(&self, domain: &[u8], nodes: &[String], split: HitSplit) {
        let shown = escape(domain).to_string();
        let key = || MetricKey::new(&shown, nodes.iter().cloned());
        let label = nodes.join(".");
        let is_known = || self.rules.lock().contains_key(&key());
        let make = || self.rules.lock().entry(key()).or_default().clone();
        if !self.overrides.count(domain, &label, is_known, make, |hits| hits.add(split)) {
            let make = |domain: &str| self.rule(domain, [LimitOf::OVERRIDE.to_owned()]);
            self.more_overrides.count(domain, make, |hits| hits.add(split));
        }
    }

    /// Visits every counter by its name in statsd, with its sum so far.
    pub fn visit(&self, mut visit: impl FnMut(&str, u64)) {
        let rules: Vec<_> =
            self.rules.lock().iter().map(|(key, hits)| (key.dotted(), hits.read())).collect();
        for (key, hits) in rules {
            for ((kind, _), sum) in KINDS.iter().zip(hits) {
                visit(&format!("ratelimit.service.rate_limit.{key}.{kind}"), sum);
            }
        }
        for (name, sum) in [
            ("ratelimit.service.call.should_rate_limit.redis_error", self.totals.redis_errors()),
            (
                "ratelimit.service.call.should_rate_limit.service_error",
                self.totals.service_errors(),
            ),
            ("ratelimit.service.config_load_success", self.totals.loads()),
            ("ratelimit.service.config_load_error", self.totals.failed_loads()),
            ("ratelimit.service.global_shadow_mode", self.global_shadow_mode.get()),
        ] {
            visit(name, sum);
        }
        let calls = self.response_time.read().count();
        visit(&format!("ratelimit_server.{METHOD}.total_requests"), calls);
    }

    /// The name of the timer in statsd.
    pub fn timer() -> String {
        format!("ratelimit_server.{METHOD}.response_time")
    }
}

/// The labels of a series: domain, `key1`, and `key2` for a rule that has two nodes or more.
type Labels = Vec<(&'static str, String)>;

impl ReferenceMetrics {
    /// The sums by labels. Deeper rules count in the series of their first two nodes; there is none
    /// before its first hit.
    fn series(&self) -> Vec<(Labels, [u64; KINDS.len()])> {
        let mut series: Vec<(Labels, [u64; KINDS.len()])> = Vec::new();
        for (key, hits) in self.rules.lock().iter() {
            let sums = hits.read();
            if sums == [0; KINDS.len()] {
                continue;
            }
            let values = [&key.domain].into_iter().chain(key.nodes.iter().take(2)).cloned();
            let labels: Labels = ["domain", "key1", "key2"].into_iter().zip(values).collect();
            match series.last_mut() {
                Some((last, total)) if *last == labels => {
                    total.iter_mut().zip(sums).for_each(|(total, sum)| *total += sum);
                }
                _ => series.push((labels, sums)),
            }
        }
        series
    }

    fn encode_hits(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let series = self.series();
        for (i, (kind, help)) in KINDS.into_iter().enumerate() {
            let name = format!("ratelimit_service_rate_limit_{kind}");
            let mut family = encoder.encode_descriptor(&name, help, None, MetricType::Unknown)?;
            for (labels, sums) in &series {
                let sum = sums.get(i).copied().unwrap_or_default();
                family.encode_family(labels)?.encode_gauge(&sum)?;
            }
        }
        Ok(())
    }

    fn encode_calls(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let name = "ratelimit_service_should_rate_limit_error";
        let help = "Calls that Redis did not decide, and invalid calls";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Unknown)?;
        for (kind, sum) in [
            ("redis_error", self.totals.redis_errors()),
            ("service_error", self.totals.service_errors()),
        ] {
            family.encode_family(&[("err_type", kind)])?.encode_gauge(&sum)?;
        }
        let Distribution { buckets, sum } = self.response_time.read();
        let count: u64 = buckets.iter().map(|(_, count)| count).sum();
        let (name, help) = ("ratelimit_service_total_requests", "gRPC calls answered");
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Unknown)?;
        family.encode_family(&[("grpc_method", METHOD)])?.encode_gauge(&count)?;
        let (finer, coarse) = buckets.split_at(FINER_BUCKETS);
        let mut coarse = coarse.to_vec();
        if let Some((_, first)) = coarse.first_mut() {
            *first += finer.iter().map(|(_, count)| count).sum::<u64>();
        }
        let name = "ratelimit_service_response_time_seconds";
        let help = "Time from the message of a gRPC call to its answer";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        let mut histogram = family.encode_family(&[("grpc_method", METHOD)])?;
        histogram.encode_histogram::<NoLabelSet>(sum, count, &coarse, None)
    }

    fn encode_process(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        for (name, help, sum) in [
            (
                "ratelimit_service_config_load_success",
                "Policies put in force, those of the start counted",
                self.totals.loads(),
            ),
            (
                "ratelimit_service_config_load_error",
                "Policies refused because of faults",
                self.totals.failed_loads(),
            ),
            (
                "ratelimit_service_global_shadow_mode",
                "Requests over a limit that pass by the kill switch",
                self.global_shadow_mode.get(),
            ),
        ] {
            let mut one = encoder.encode_descriptor(name, help, None, MetricType::Unknown)?;
            one.encode_gauge(&sum)?;
        }
        Ok(())
    }
}

impl Collector for ReferenceMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.encode_hits(&mut encoder)?;
        self.encode_calls(&mut encoder)?;
        self.encode_process(&mut encoder)
    }
}
