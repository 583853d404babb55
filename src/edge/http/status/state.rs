//! The state of this replica, as its page shows it. All lists are bounded.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde::Serialize;

use crate::edge::http::ops::{Check, Ops};
use crate::limiter::Shared;
use crate::limiter::scales::Turned;
use crate::limiter::top::{TopCaller, TopOrder, TopQuery};
use crate::limits::ScaleSource;
use crate::settings::Word as _;
use crate::store::LimitStore;
use crate::telemetry::escape::escape;
use crate::telemetry::metrics::{Metrics, RuleCounts};

/// The most rules with their limits.
const MAX_RULES: usize = 300;

/// The most callers of a list.
const MAX_CALLERS: usize = 10;

/// The most domains with a mode of their own.
const MAX_MODES: usize = 50;

/// Everything that the page shows without being asked.
#[derive(Debug, Serialize)]
pub(super) struct StatusState {
    version: &'static str,
    uptime_seconds: u64,
    /// Descriptors by outcome since the start.
    outcomes: BTreeMap<&'static str, u64>,
    /// Requests by code since the start.
    requests: BTreeMap<&'static str, u64>,
    rules: Vec<RuleUse>,
    /// Rules with their limits that are left out.
    rules_left_out: usize,
    limited: Vec<TopRow>,
    busiest: Vec<TopRow>,
    /// The setting `admin.top_callers` is 0.
    top_is_off: bool,
    checks: Vec<CheckRow>,
    store_up: bool,
    replicas_seen: i64,
    modes: Vec<ModeRow>,
    policies: PolicyState,
    clients: i64,
    registry_revision: i64,
}

/// One limit of a rule with the decisions by it.
#[derive(Debug, Serialize)]
struct RuleUse {
    domain: String,
    rule: String,
    limit: String,
    outcomes: BTreeMap<&'static str, u64>,
    hits: u64,
    /// The rule is turned to a part of its limits.
    scale: Option<ScaleState>,
}

/// The part of its limits to which a rule is turned.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ScaleState {
    percent: f64,
    by: &'static str,
    /// In seconds since 1970; none: until it is taken back.
    expires_at: Option<u64>,
}

/// A caller in a rank.
#[derive(Debug, Serialize)]
struct TopRow {
    domain: String,
    descriptor: String,
    rule: String,
    limit: String,
    count: u64,
    max_error: u64,
}

#[derive(Debug, Serialize)]
struct CheckRow {
    name: String,
    ok: bool,
    text: String,
}

#[derive(Debug, Serialize)]
struct ModeRow {
    /// Empty: all domains without a mode of their own.
    domain: String,
    mode: String,
}

#[derive(Debug, Serialize)]
struct PolicyState {
    version: i64,
    domains: i64,
    rules: i64,
    last_reload_successful: bool,
    last_reload_seconds: i64,
}

/// Reads the state of a replica that started `uptime` ago.
pub(super) fn read<S: LimitStore>(ops: &Ops<S>, uptime: Duration) -> StatusState {
    let (metrics, shared) = (&*ops.metrics, ops.rls.limiter().shared());
    let counts = metrics.rule_counts();
    let mut rules = rules(&counts);
    let rules_left_out = rules.len().saturating_sub(MAX_RULES);
    rules.truncate(MAX_RULES);
    turn(&mut rules, shared);
    StatusState {
        version: env!("CARGO_PKG_VERSION"),
        uptime_seconds: uptime.as_secs(),
        outcomes: outcomes(&counts),
        requests: requests(metrics),
        rules,
        rules_left_out,
        limited: top(shared, TopOrder::Limited),
        busiest: top(shared, TopOrder::Busiest),
        top_is_off: shared.top.is_off(),
        checks: (ops.checks)().into_iter().map(CheckRow::from).collect(),
        store_up: metrics.store.up.get() == 1,
        replicas_seen: metrics.outage.replicas_seen.get(),
        modes: modes(shared),
        policies: PolicyState {
            version: metrics.policies.version.get(),
            domains: metrics.policies.domains.get(),
            rules: metrics.policies.rules.get(),
            last_reload_successful: metrics.policies.last_reload_successful.get() == 1,
            last_reload_seconds: metrics.policies.last_reload_timestamp.get(),
        },
        clients: metrics.registry.clients.get(),
        registry_revision: metrics.registry.revision.get(),
    }
}

fn outcomes(counts: &[RuleCounts]) -> BTreeMap<&'static str, u64> {
    let mut sums = BTreeMap::new();
    for one in counts {
        *sums.entry(one.outcome).or_default() += one.decisions;
    }
    sums
}

fn requests(metrics: &Metrics) -> BTreeMap<&'static str, u64> {
    let requests = &metrics.requests;
    BTreeMap::from([
        ("ok", requests.ok.get()),
        ("over_limit", requests.over_limit.get()),
        ("invalid", requests.invalid.get() + requests.forbidden.get()),
        ("unavailable", requests.unavailable.get()),
    ])
}

/// The rules by their decisions, the most used first.
fn rules(counts: &[RuleCounts]) -> Vec<RuleUse> {
    let mut rules: BTreeMap<[&str; 3], RuleUse> = BTreeMap::new();
    for RuleCounts { domain, rule, limit, outcome, decisions, hits } in counts {
        let of_limit = rules.entry([domain, rule, limit]).or_insert_with(|| RuleUse {
            domain: domain.clone(),
            rule: rule.clone(),
            limit: limit.clone(),
            outcomes: BTreeMap::new(),
            hits: 0,
            scale: None,
        });
        *of_limit.outcomes.entry(outcome).or_default() += decisions;
        of_limit.hits += hits;
    }
    let mut rules: Vec<RuleUse> = rules.into_values().collect();
    rules.sort_by_key(|rule| std::cmp::Reverse(rule.outcomes.values().sum::<u64>()));
    rules
}

/// Notes which rules are turned.
fn turn(rules: &mut [RuleUse], shared: &Shared) {
    let name = |text: &str| escape(text.as_bytes()).to_string();
    let turned = shared.policies.scales.in_force(shared.resolver.clients.now()).into_iter();
    let turned: HashMap<(String, String), Turned> =
        turned.map(|((domain, rule), turned)| ((name(&domain), name(&rule)), turned)).collect();
    for rule in rules {
        let named = (rule.domain.clone(), rule.rule.clone());
        rule.scale = turned.get(&named).copied().map(ScaleState::from);
    }
}

fn top(shared: &Shared, order: TopOrder) -> Vec<TopRow> {
    let ranking = shared.top.rank(TopQuery { order, ..TopQuery::default() });
    let snapshot = shared.policies.current();
    let row = |TopCaller { caller, count, max_error }: &TopCaller| {
        let labels = caller.labels(&shared.resolver, &snapshot);
        TopRow {
            domain: labels.domain,
            descriptor: labels.descriptor,
            rule: labels.rule,
            limit: labels.limit,
            count: *count,
            max_error: *max_error,
        }
    };
    ranking.callers.iter().take(MAX_CALLERS).map(row).collect()
}

fn modes(shared: &Shared) -> Vec<ModeRow> {
    let in_force = shared.modes.modes().in_force();
    let row = |one: &crate::limiter::mode::InForce| ModeRow {
        domain: escape(&one.domain).to_string(),
        mode: one.mode.word().to_owned(),
    };
    in_force.iter().take(MAX_MODES).map(row).collect()
}

impl From<Turned> for ScaleState {
    fn from(Turned { per_mille, source, ends_at }: Turned) -> Self {
        let by = match source {
            ScaleSource::Operator => "operator",
            ScaleSource::Controller => "controller",
        };
        let expires_at = ends_at.map(|at| at.as_micros() / 1_000_000);
        Self { percent: f64::from(per_mille) / 10.0, by, expires_at }
    }
}

impl From<Check> for CheckRow {
    fn from(Check { name, state }: Check) -> Self {
        let ok = state.is_ok();
        Self { name, ok, text: state.unwrap_or_else(|fault| fault) }
    }
}
