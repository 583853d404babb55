//! All instruments: names, units and help texts.
//!
//! Labels take their values from policies and settings, never from requests. The exception are
//! rules with `detailed_metric` or `value_to_metric`; [`Metrics::detailed_rule`] bounds their
//! series.

mod by_label;
mod hits;
mod labels;
mod listeners;
mod outage;
mod process;
mod reference;
mod settings;
mod totals;
mod xds;

use std::collections::HashSet;
use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

pub use self::by_label::RuleMetrics;
use self::by_label::{Budget, ByDomain, Detailed};
pub use self::hits::{HitSplit, RuleHits};
use self::labels::{
    AddressLabel, Code, DecisionLabels, Kind, ModeLabels, ResultLabel, UnmatchedLabels,
};
pub use self::listeners::{CertificateOf, ListenerMetrics};
pub use self::outage::OutageMetrics;
use self::process::ProcessMetrics;
pub use self::reference::ReferenceMetrics;
pub use self::settings::{MetricsSettings, Names};
use self::totals::Totals;
pub use self::xds::XdsMetrics;
use super::sharded::{DurationHistogram, ShardedCounter};

/// The content type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The outcome of a descriptor that passed. Every rule has this series from the start.
const OK: &str = "ok";

/// The source of the limit of a descriptor that no rule matches.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Unruled {
    /// The override in the descriptor.
    Override,
    /// The client that the descriptor names.
    Client,
}

impl Unruled {
    /// The value of the label `rule`.
    const fn label(self) -> &'static str {
        match self {
            Self::Override => "(override)",
            Self::Client => "(client)",
        }
    }
}

/// The failures of stores, by kind.
#[derive(Debug, Default)]
pub struct StoreErrors {
    /// No answer in time.
    pub timeout: ShardedCounter,
    /// Not connected, or too many requests wait.
    pub unavailable: ShardedCounter,
    /// Refused by the store.
    pub rejected: ShardedCounter,
    /// An answer that cannot be read.
    pub protocol: ShardedCounter,
}

/// The instruments of the process.
///
/// Decisions write [sharded](super::sharded) counters alone. Plain counters and gauges are written
/// at start, by reloads, per connection and by scrapes.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// The series whose names do not begin with `tollgate`.
    others: Registry,
    names: Names,
    reference: Option<Arc<ReferenceMetrics>>,
    decisions: Family<DecisionLabels, ShardedCounter>,
    overrides: ByDomain<RuleMetrics>,
    unruled_clients: ByDomain<RuleMetrics>,
    unmatched: Family<UnmatchedLabels, ShardedCounter>,
    no_rule: ByDomain<ShardedCounter>,
    /// Descriptors of domains that no policy and no client names.
    pub of_unknown_domain: ShardedCounter,
    /// Denials that the debug log leaves out.
    pub denied_lines_dropped: ShardedCounter,
    /// Lines of statistics that did not reach the server.
    pub statsd_lines_dropped: Counter,
    detailed: Detailed<RuleMetrics>,
    /// Requests answered OK.
    pub requests_ok: ShardedCounter,
    /// Requests answered OVER_LIMIT.
    pub requests_over_limit: ShardedCounter,
    /// Requests answered with a gRPC error: no domain or no descriptors.
    pub requests_invalid: ShardedCounter,
    /// Requests of callers that may not ask about the domain.
    pub requests_forbidden: ShardedCounter,
    /// Requests that their callers decide.
    pub requests_unavailable: ShardedCounter,
    /// Time to decide a request, without the network.
    pub decision_duration: DurationHistogram,
    /// Requests that the store did not decide.
    pub store_errors: StoreErrors,
    /// Outages of the store.
    pub outage: OutageMetrics,
    /// Requests denied by the deny cache, without the store.
    pub remembered_denials: ShardedCounter,
    /// Hits admitted from leases, without the store.
    pub leased_hits: ShardedCounter,
    /// Leased hits that were not spent before their lease ended.
    pub stranded_hits: ShardedCounter,
    /// Requests for domains that no policy and no client names.
    pub unknown_domain: ShardedCounter,
    /// Requests larger than the bounds.
    pub out_of_bounds: ShardedCounter,
    /// The version of the policies in force.
    pub policy_version: Gauge,
    /// Reloads that put new policies in force.
    pub reloads_ok: Counter,
    /// Reloads rejected because of faults.
    pub reloads_failed: Counter,
    /// 1 when the last reload was put in force.
    pub last_reload_successful: Gauge,
    /// The time of the last reload, refused or not, in seconds since 1970.
    pub last_reload_timestamp: Gauge,
    /// Domains that have a policy in force.
    pub domains: Gauge,
    /// Rules in force.
    pub rules: Gauge,
    /// 1 while the store can be reached.
    pub store_up: Gauge,
    /// The control plane.
    pub xds: XdsMetrics,
    /// The number of times that the primary of Redis has moved.
    pub redis_switches: Counter<u64, AtomicU64>,
    redis_primary: Family<AddressLabel, Gauge>,
    /// Counters held in memory.
    pub memory_counters: Gauge,
    /// Stored states in a format that this version cannot read. They count as empty.
    pub unreadable_states: Counter<u64, AtomicU64>,
    /// Connections before their first request.
    pub listeners: ListenerMetrics,
    /// Policies applied at run time that do not compile and are left out.
    pub faulty_policies: Gauge,
    /// Records of the registry that could not be read and were skipped.
    pub unreadable_records: Counter,
    /// The revision of the registry that is in force; 0 during a full read.
    pub registry_revision: Gauge,
    /// 1 while the registry can be reached.
    pub registry_up: Gauge,
    /// 1 while the registry takes writes.
    pub registry_writable: Gauge,
    /// Clients, including recently expired ones.
    pub clients: Gauge,
    modes: Family<ModeLabels, Gauge>,
    /// The series of `modes`.
    shown_modes: Mutex<HashSet<ModeLabels>>,
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
        let mut made = Self::at_zero(settings.names, budget.clone());
        made.register_decisions();
        made.register_store();
        made.register_redis();
        made.register_process();
        made.register_registry();
        if reference || settings.names.have_reference() {
            made.register_reference(settings, budget);
        }
        made
    }

    fn at_zero(names: Names, budget: Budget) -> Self {
        Self {
            registry: Registry::with_prefix("tollgate"),
            others: Registry::default(),
            names,
            reference: None,
            decisions: Family::default(),
            overrides: ByDomain::default(),
            unruled_clients: ByDomain::default(),
            unmatched: Family::default(),
            no_rule: ByDomain::default(),
            of_unknown_domain: ShardedCounter::default(),
            denied_lines_dropped: ShardedCounter::default(),
            statsd_lines_dropped: Counter::default(),
            detailed: Detailed::new(budget),
            requests_ok: ShardedCounter::default(),
            requests_over_limit: ShardedCounter::default(),
            requests_invalid: ShardedCounter::default(),
            requests_forbidden: ShardedCounter::default(),
            requests_unavailable: ShardedCounter::default(),
            decision_duration: DurationHistogram::default(),
            store_errors: StoreErrors::default(),
            outage: OutageMetrics::default(),
            remembered_denials: ShardedCounter::default(),
            leased_hits: ShardedCounter::default(),
            stranded_hits: ShardedCounter::default(),
            unknown_domain: ShardedCounter::default(),
            out_of_bounds: ShardedCounter::default(),
            policy_version: Gauge::default(),
            reloads_ok: Counter::default(),
            reloads_failed: Counter::default(),
            last_reload_successful: Gauge::default(),
            last_reload_timestamp: Gauge::default(),
            domains: Gauge::default(),
            rules: Gauge::default(),
            store_up: Gauge::default(),
            xds: XdsMetrics::default(),
            redis_switches: Counter::default(),
            redis_primary: Family::default(),
            memory_counters: Gauge::default(),
            unreadable_states: Counter::default(),
            listeners: ListenerMetrics::default(),
            faulty_policies: Gauge::default(),
            unreadable_records: Counter::default(),
            registry_revision: Gauge::default(),
            registry_up: Gauge::default(),
            registry_writable: Gauge::default(),
            clients: Gauge::default(),
            modes: Family::default(),
            shown_modes: Mutex::default(),
        }
    }

    fn register_decisions(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "decisions",
            "Descriptors decided, by domain, rule and outcome",
            self.decisions.clone(),
        );
        let requests: Family<Code, ShardedCounter> = Family::default();
        self.requests_ok = requests.get_or_create_owned(&Code { code: "ok" });
        self.requests_over_limit = requests.get_or_create_owned(&Code { code: "over_limit" });
        self.requests_invalid = requests.get_or_create_owned(&Code { code: "invalid_argument" });
        self.requests_forbidden = requests.get_or_create_owned(&Code { code: "permission_denied" });
        self.requests_unavailable = requests.get_or_create_owned(&Code { code: "unavailable" });
        registry.register("requests", "Requests answered, by code", requests);
        registry.register_with_unit(
            "decision_duration",
            "Time to decide a request, store included, network excluded",
            Unit::Seconds,
            self.decision_duration.clone(),
        );
        registry.register(
            "unknown_domain_requests",
            "Requests for domains that no policy and no client names; they pass",
            self.unknown_domain.clone(),
        );
        // One label for all of them, because callers choose their names.
        let unknown = UnmatchedLabels { domain: "(unknown)".to_owned(), reason: "unknown_domain" };
        self.of_unknown_domain = self.unmatched.get_or_create_owned(&unknown);
        registry.register(
            "unmatched",
            "Descriptors that nothing limits, by domain and reason; they pass",
            self.unmatched.clone(),
        );
        registry.register(
            "denied_lines_dropped",
            "Denials without a line in the debug log, beyond ten a second",
            self.denied_lines_dropped.clone(),
        );
        registry.register(
            "out_of_bounds_requests",
            "Requests beyond the bounds; they are over limit",
            self.out_of_bounds.clone(),
        );
    }

    fn register_store(&mut self) {
        let registry = &mut self.registry;
        let errors: Family<Kind, ShardedCounter> = Family::default();
        let kind = |kind| errors.get_or_create_owned(&Kind { kind });
        self.store_errors = StoreErrors {
            timeout: kind("timeout"),
            unavailable: kind("unavailable"),
            rejected: kind("rejected"),
            protocol: kind("protocol"),
        };
        registry.register(
            "store_errors",
            "Requests that the store did not decide, by kind of failure",
            errors,
        );
        self.outage.register(registry);
        registry.register(
            "remembered_denials",
            "Requests denied by the deny cache, without the store",
            self.remembered_denials.clone(),
        );
        registry.register(
            "leased_hits",
            "Hits admitted from leases, without the store",
            self.leased_hits.clone(),
        );
        registry.register(
            "stranded_hits",
            "Leased hits that were not spent before their lease ended",
            self.stranded_hits.clone(),
        );
        registry.register(
            "store_up",
            "1 while all connections to the store are up",
            self.store_up.clone(),
        );
        registry.register(
            "memory_counters",
            "Counters held in the memory of this process",
            self.memory_counters.clone(),
        );
        registry.register(
            "unreadable_states",
            "Stored counters in a format that this version cannot read; they count as empty",
            self.unreadable_states.clone(),
        );
    }

    fn register_redis(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "redis_switches",
            "Times that the primary of Redis has moved, by the word of the sentinels",
            self.redis_switches.clone(),
        );
        registry.register(
            "redis_primary",
            "1 for the address of the primary of Redis",
            self.redis_primary.clone(),
        );
    }

    fn register_process(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "policy_version",
            "Version of the policies in force, counted from 1",
            self.policy_version.clone(),
        );
        let reloads: Family<ResultLabel, Counter> = Family::default();
        self.reloads_ok = reloads.get_or_create_owned(&ResultLabel { result: "ok" });
        self.reloads_failed = reloads.get_or_create_owned(&ResultLabel { result: "refused" });
        registry.register("policy_reloads", "Reloads of the policies, by result", reloads);
        registry.register(
            "policy_last_reload_successful",
            "1 when the last reload of the policies, or the start, was put in force",
            self.last_reload_successful.clone(),
        );
        registry.register_with_unit(
            "policy_last_reload_timestamp",
            "Time of the last reload of the policies, refused or not, since 1970",
            Unit::Seconds,
            self.last_reload_timestamp.clone(),
        );
        registry.register("domains", "Domains that have a policy in force", self.domains.clone());
        registry.register("rules", "Rules of the policies in force", self.rules.clone());
        registry.register(
            "faulty_policies",
            "Policies applied at run time that do not compile and are left out",
            self.faulty_policies.clone(),
        );
        self.xds.register(registry);
        self.listeners.register(registry);
        registry.register(
            "build",
            "The running version",
            Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]),
        );
        registry.register(
            "statsd_lines_dropped",
            "Lines of statistics that did not reach the statsd server",
            self.statsd_lines_dropped.clone(),
        );
        let process = self.others.sub_registry_with_prefix("process");
        process.register_collector(Box::new(ProcessMetrics));
    }

    fn register_registry(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "registry_up",
            "1 while the registry of operators' changes is reachable",
            self.registry_up.clone(),
        );
        registry.register(
            "registry_writable",
            "1 while the registry takes writes, by a probe each minute and by every change",
            self.registry_writable.clone(),
        );
        registry.register(
            "registry_revision",
            "Revision of the registry in force; 0 during a full read",
            self.registry_revision.clone(),
        );
        registry.register(
            "unreadable_records",
            "Records of the registry that could not be read and were skipped",
            self.unreadable_records.clone(),
        );
        registry.register("clients", "Clients with limits of their own", self.clients.clone());
        registry.register(
            "mode",
            "1 for the mode of all domains, whose label is empty, and of each that is not enforced",
            self.modes.clone(),
        );
    }

    fn register_reference(&mut self, settings: &MetricsSettings, budget: Budget) {
        let StoreErrors { timeout, unavailable, rejected, protocol } = &self.store_errors;
        let totals = Totals {
            store_errors: [timeout, unavailable, rejected, protocol].map(Clone::clone),
            invalid: [&self.requests_invalid, &self.requests_forbidden].map(Clone::clone),
            reloads_ok: self.reloads_ok.clone(),
            reloads_failed: self.reloads_failed.clone(),
        };
        let made = ReferenceMetrics::new(settings.near_limit_ratio.get(), budget, totals);
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

    /// The counters of the rule `rule` of `domain`, which is at the end of `nodes` as
    /// envoyproxy/ratelimit names them.
    pub fn rule<N>(&self, domain: &str, rule: &str, nodes: impl FnOnce() -> N) -> RuleMetrics
    where
        N: IntoIterator<Item = String>,
    {
        let hits = self.reference().map(|reference| reference.rule(domain, nodes()));
        RuleMetrics { hits, ..self.outcomes(domain, rule) }
    }

    fn outcomes(&self, domain: &str, rule: &str) -> RuleMetrics {
        let counter = |outcome| {
            let (domain, rule) = (domain.to_owned(), rule.to_owned());
            self.decisions.get_or_create_owned(&DecisionLabels { domain, rule, outcome })
        };
        RuleMetrics {
            ok: counter(OK),
            over_limit: counter("over_limit"),
            shadowed: counter("shadowed"),
            hits: None,
        }
    }

    /// Counts by `count` a descriptor of `domain` that no rule matches. The hits of an override are
    /// counted [elsewhere](ReferenceMetrics::of_override).
    pub fn unruled(&self, domain: &[u8], unruled: Unruled, count: impl FnOnce(&RuleMetrics)) {
        let counters = match unruled {
            Unruled::Override => &self.overrides,
            Unruled::Client => &self.unruled_clients,
        };
        let label = unruled.label();
        let make = |domain: &str| match unruled {
            Unruled::Override => self.outcomes(domain, label),
            Unruled::Client => self.rule(domain, label, || [label.to_owned()]),
        };
        counters.count(domain, make, count);
    }

    /// Counts a descriptor of `domain`, which a policy or a client names, that nothing limits as no
    /// rule matches it.
    pub fn no_rule(&self, domain: &[u8]) {
        let make = |domain: &str| {
            let labels = UnmatchedLabels { domain: domain.to_owned(), reason: "no_rule" };
            self.unmatched.get_or_create_owned(&labels)
        };
        self.no_rule.count(domain, make, ShardedCounter::inc);
    }

    /// Counts by `count` a descriptor by a rule label with values from the request, and `nodes`
    /// with the same values. False if the maximum of series is reached.
    ///
    /// # Concurrency
    /// Takes a lock that only labels of the same shard share.
    pub fn detailed_rule<N>(
        &self,
        domain: &str,
        rule: &str,
        nodes: impl FnOnce() -> N,
        count: impl FnOnce(&RuleMetrics),
    ) -> bool
    where
        N: IntoIterator<Item = String>,
    {
        let is_known = || {
            let (domain, rule) = (domain.to_owned(), rule.to_owned());
            self.decisions.get(&DecisionLabels { domain, rule, outcome: OK }).is_some()
        };
        let make = || self.rule(domain, rule, nodes);
        self.detailed.count(domain.as_bytes(), rule, is_known, make, count)
    }

    /// Shows these modes by domain, and no others.
    pub fn set_modes(&self, modes: impl Iterator<Item = (String, &'static str)>) {
        let labels = modes.map(|(domain, mode)| ModeLabels { domain, mode });
        let wanted: HashSet<ModeLabels> = labels.collect();
        let mut shown = self.shown_modes.lock();
        for labels in &wanted {
            self.modes.get_or_create(labels).set(1);
        }
        for labels in shown.difference(&wanted) {
            self.modes.remove(labels);
        }
        *shown = wanted;
    }

    /// Shows this address of the primary of Redis, and no other.
    pub fn set_redis_primary(&self, address: Option<String>) {
        let Some(address) = address else { return };
        let labels = AddressLabel { address };
        if self.redis_primary.get(&labels).is_none() {
            self.redis_primary.clear();
            self.redis_primary.get_or_create(&labels).set(1);
        }
    }

    /// Renders all instruments in the OpenMetrics text format; see [`CONTENT_TYPE`].
    pub fn render(&self) -> String {
        let mut text = String::new();
        if self.encode(&mut text).is_err() {
            let _ = writeln!(text, "# the metrics cannot be rendered");
        }
        text
    }

    fn encode(&self, text: &mut String) -> fmt::Result {
        if self.names.have_tollgate() {
            encode_registry(text, &self.registry)?;
        }
        encode_registry(text, &self.others)?;
        encode_eof(text)
    }
}
