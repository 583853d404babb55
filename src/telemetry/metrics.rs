//! All instruments: names, units and help texts.
//!
//! Labels take their values from policies and settings, never from requests. The exception are
//! rules with `detailed_metric` or `value_to_metric`; [`Metrics::detailed_rule`] bounds their
//! series.

mod by_label;
mod decisions;
mod durations;
mod events;
mod hits;
mod holds;
mod labels;
mod listeners;
mod outage;
mod output;
mod overview;
mod policies;
mod process;
mod reference;
mod registry;
mod requests;
mod settings;
mod store;
mod text;
mod top;
mod totals;
mod unmatched;
mod xds;

use std::fmt::{self, Write as _};
use std::sync::Arc;

use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use self::by_label::{Budget, Detailed};
pub use self::decisions::{Decided, LimitOf, OutcomeLabel, RuleMetrics, SeriesName};
use self::decisions::{Decisions, LabelledMetrics};
pub use self::durations::{Answered, DecisionDurations};
pub use self::events::EventMetrics;
pub use self::hits::{HitSplit, RuleHits};
pub use self::holds::{HoldMetrics, HoldState};
pub use self::listeners::{CertificateOf, ListenerMetrics};
pub use self::outage::OutageMetrics;
pub use self::output::{LineMetrics, OutputMetrics, SpanMetrics};
pub use self::overview::RuleCounts;
pub use self::policies::PolicyMetrics;
use self::process::ProcessMetrics;
pub use self::reference::ReferenceMetrics;
pub use self::registry::RegistryMetrics;
pub use self::requests::RequestMetrics;
pub use self::settings::{MetricsSettings, Names};
pub use self::store::{CallMetrics, StoreErrors, StoreMetrics};
pub use self::text::TextFormat;
pub use self::top::TopLabels;
use self::top::TopSeries;
use self::totals::Totals;
use self::unmatched::Unmatched;
pub use self::unmatched::Unruled;
pub use self::xds::XdsMetrics;
use super::escape::escape;

/// The instruments of the process.
///
/// Decisions write [sharded](super::sharded) counters alone. Plain counters and gauges are written
/// at start, by reloads, per connection and by scrapes.
#[derive(Debug)]
pub struct Metrics {
    instruments: Registry,
    /// The series whose names do not begin with `tollgate`.
    others: Registry,
    names: Names,
    reference: Option<Arc<ReferenceMetrics>>,
    /// The part of a limit from which on it is nearly used up.
    pub near_limit_ratio: f32,
    decisions: Arc<Decisions>,
    detailed: Detailed<LabelledMetrics>,
    unmatched: Unmatched,
    top: Arc<TopSeries>,
    /// Requests as a whole.
    pub requests: RequestMetrics,
    /// Time to decide a request, without the network.
    pub decision_durations: DecisionDurations,
    /// The store of counters.
    pub store: StoreMetrics,
    /// Outages of the store.
    pub outage: OutageMetrics,
    /// The policies in force.
    pub policies: PolicyMetrics,
    /// The control plane.
    pub xds: XdsMetrics,
    /// The registry of operators' changes.
    pub registry: RegistryMetrics,
    /// Connections, and certificates.
    pub listeners: ListenerMetrics,
    /// Lines of the logs, and spans.
    pub output: OutputMetrics,
    /// Events of limits.
    pub events: EventMetrics,
    /// Holds.
    pub holds: Arc<HoldMetrics>,
    /// Lines of statistics that did not reach the server.
    pub statsd_lines_dropped: Counter,
}

impl Metrics {
    /// Makes the instruments, all at zero, by the default settings. At most `max_detailed` series
    /// may have labels from requests.
    pub fn new(max_detailed: usize) -> Self {
        let settings = MetricsSettings { max_series: max_detailed, ..MetricsSettings::default() };
        Self::by_settings(&settings, false)
    }

    /// Makes the instruments, all at zero. `reference`: those of envoyproxy/ratelimit count even if
    /// they are not shown.
    pub fn by_settings(settings: &MetricsSettings, reference: bool) -> Self {
        let budget = Budget::new(settings.max_series);
        let mut made = Self::at_zero(settings, budget.clone());
        made.register();
        if reference || settings.names.have_reference() {
            made.register_reference(settings, budget);
        }
        made
    }

    fn at_zero(settings: &MetricsSettings, budget: Budget) -> Self {
        Self {
            instruments: Registry::with_prefix("tollgate"),
            others: Registry::default(),
            names: settings.names,
            reference: None,
            near_limit_ratio: settings.near_limit_ratio.get(),
            decisions: Arc::default(),
            detailed: Detailed::new(budget),
            unmatched: Unmatched::default(),
            top: Arc::new(TopSeries::new(settings.top_series)),
            requests: RequestMetrics::default(),
            decision_durations: DecisionDurations::default(),
            store: StoreMetrics::default(),
            outage: OutageMetrics::default(),
            policies: PolicyMetrics::default(),
            xds: XdsMetrics::default(),
            registry: RegistryMetrics::default(),
            listeners: ListenerMetrics::default(),
            output: OutputMetrics::default(),
            events: EventMetrics::default(),
            holds: Arc::default(),
            statsd_lines_dropped: Counter::default(),
        }
    }

    fn register(&mut self) {
        let instruments = &mut self.instruments;
        self.decisions.register(instruments);
        self.requests.register(instruments);
        self.unmatched.register(instruments);
        instruments.register_collector(Box::new(Arc::clone(&self.top)));
        self.decision_durations.register(instruments);
        self.store.register(instruments);
        self.outage.register(instruments);
        self.policies.register(instruments);
        self.xds.register(instruments);
        self.registry.register(instruments);
        self.listeners.register(instruments);
        self.output = OutputMetrics::registered(instruments);
        self.holds.register(instruments);
        self.events.register(instruments);
        instruments.register(
            "statsd_lines_dropped",
            "Lines of statistics that did not reach the statsd server",
            self.statsd_lines_dropped.clone(),
        );
        instruments.register(
            "build",
            "The running version",
            Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]),
        );
        let process = self.others.sub_registry_with_prefix("process");
        process.register_collector(Box::new(ProcessMetrics));
    }

    fn register_reference(&mut self, settings: &MetricsSettings, budget: Budget) {
        let StoreErrors { timeout, unavailable, rejected, protocol } = &self.store.errors;
        let totals = Totals {
            store_errors: [timeout, unavailable, rejected, protocol].map(Clone::clone),
            invalid: [&self.requests.invalid, &self.requests.forbidden].map(Clone::clone),
            reloads_ok: self.policies.reloads_ok.clone(),
            reloads_failed: self.policies.reloads_failed.clone(),
        };
        let made = ReferenceMetrics::new(budget, totals);
        let made = Arc::new(made);
        if settings.names.have_reference() {
            self.others.register_collector(Box::new(Arc::clone(&made)));
        }
        self.reference = Some(made);
    }

    /// The counts of envoyproxy/ratelimit; none: nothing asks for them.
    pub fn reference(&self) -> Option<&ReferenceMetrics> {
        self.reference.as_deref()
    }

    /// The counters of a rule of `domain` with so many limits, which is at the end of `nodes` as
    /// envoyproxy/ratelimit names them.
    pub fn rule<N>(&self, domain: &str, limits: usize, nodes: impl FnOnce() -> N) -> RuleMetrics
    where
        N: IntoIterator<Item = String>,
    {
        RuleMetrics::new(limits, self.reference_hits(domain, nodes))
    }

    fn reference_hits<N>(&self, domain: &str, nodes: impl FnOnce() -> N) -> Option<RuleHits>
    where
        N: IntoIterator<Item = String>,
    {
        self.reference().map(|reference| reference.rule(domain, nodes()))
    }

    /// Counts a descriptor by the counters of its rule; `name` makes the name of a new series.
    pub fn decided(
        &self,
        rule: &RuleMetrics,
        limit: LimitOf,
        decided: Decided,
        name: impl FnOnce() -> SeriesName,
    ) {
        rule.count(&self.decisions, limit, decided, name);
    }

    /// Counts a descriptor of `domain` that no rule matches. The hits of an override are counted
    /// [elsewhere](ReferenceMetrics::of_override).
    pub fn unruled(&self, domain: &[u8], unruled: Unruled, decided: Decided) {
        let label = unruled.label();
        let name = || SeriesName {
            domain: escape(domain).to_string(),
            rule: label.to_owned(),
            limit: label.to_owned(),
        };
        let count = |counters: &Arc<LabelledMetrics>| {
            counters.count(&self.decisions, decided, name);
        };
        match unruled {
            Unruled::Override => {
                let make = |_: &str| Arc::new(LabelledMetrics::new(None));
                self.unmatched.overrides.count(domain, make, count);
            }
            Unruled::Client => {
                let make = |domain: &str| {
                    let hits = self.reference_hits(domain, || [label.to_owned()]);
                    Arc::new(LabelledMetrics::new(hits))
                };
                self.unmatched.clients.count(domain, make, count);
            }
        }
    }

    /// Counts a descriptor of `domain`, which a policy or a client names, that nothing limits as no
    /// rule matches it.
    pub fn no_rule(&self, domain: &[u8]) {
        self.unmatched.no_rule(domain);
    }

    /// Counts a descriptor of a domain that no policy and no client names.
    pub fn of_unknown_domain(&self) {
        self.unmatched.unknown_domain();
    }

    /// Counts a descriptor under the name of a series with values from the request, and `nodes`
    /// with the same values. False if the maximum of such series is reached.
    ///
    /// # Concurrency
    /// Takes a lock that only series of the same shard share.
    pub fn detailed_rule<N>(
        &self,
        name: &SeriesName,
        nodes: impl FnOnce() -> N,
        decided: Decided,
    ) -> bool
    where
        N: IntoIterator<Item = String>,
    {
        let SeriesName { domain, rule, limit } = name;
        let make = || LabelledMetrics::new(self.reference_hits(domain, nodes));
        let count = |counters: &LabelledMetrics| {
            counters.count(&self.decisions, decided, || name.clone());
        };
        // A limit has no line break in its name.
        let label = format!("{rule}\n{limit}");
        self.detailed.count(domain.as_bytes(), &label, || false, make, count)
    }

    /// Shows the descriptors that are limited most: those that `read` returns, at most as many as
    /// it is asked for. The first `read` stays.
    pub fn show_top(&self, read: impl Fn(usize) -> Vec<(TopLabels, u64)> + Send + Sync + 'static) {
        self.top.read_by(Box::new(read));
    }

    /// Renders all instruments in `format`.
    pub fn render(&self, format: TextFormat) -> String {
        let mut text = String::new();
        if self.encode(&mut text).is_err() {
            let _ = writeln!(text, "# the metrics cannot be rendered");
        }
        match format {
            TextFormat::OpenMetrics => text,
            TextFormat::Prometheus => text::prometheus(&text),
        }
    }

    fn encode(&self, text: &mut String) -> fmt::Result {
        if self.names.have_tollgate() {
            encode_registry(text, &self.instruments)?;
        }
        encode_registry(text, &self.others)?;
        encode_eof(text)
    }
}
