//! The instruments of the policies in force and of the kill switch.

use std::collections::HashSet;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::labels::ResultLabel;

/// The policies, and the modes.
#[derive(Debug, Default)]
pub struct PolicyMetrics {
    /// The version of the policies in force.
    pub version: Gauge,
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
    /// Policies applied at run time that do not compile and are left out.
    pub faulty: Gauge,
    scales: Family<ScaleLabels, Gauge<f64, AtomicU64>>,
    /// The series of `scales`.
    shown_scales: Mutex<HashSet<ScaleLabels>>,
    blind: Family<ScaleLabels, Gauge>,
    /// The series of `blind`.
    shown_blind: Mutex<HashSet<ScaleLabels>>,
    modes: Family<ModeLabels, Gauge>,
    /// The series of `modes`.
    shown_modes: Mutex<HashSet<ModeLabels>>,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ModeLabels {
    domain: String,
    mode: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ScaleLabels {
    domain: String,
    rule: String,
}

impl PolicyMetrics {
    /// Shows these rules with the share of their limits that is in force, and no others.
    pub fn show_scales(&self, scales: impl Iterator<Item = (String, String, f64)>) {
        let mut shown = self.shown_scales.lock();
        let mut wanted = HashSet::new();
        for (domain, rule, share) in scales {
            let labels = ScaleLabels { domain, rule };
            self.scales.get_or_create(&labels).set(share);
            wanted.insert(labels);
        }
        for labels in shown.difference(&wanted) {
            self.scales.remove(labels);
        }
        *shown = wanted;
    }

    /// Shows of these rules, by domain and label, whether they get too few reports, and of no
    /// others.
    pub fn show_blind(&self, rules: impl Iterator<Item = (String, String, bool)>) {
        let mut shown = self.shown_blind.lock();
        let mut wanted = HashSet::new();
        for (domain, rule, blind) in rules {
            let labels = ScaleLabels { domain, rule };
            self.blind.get_or_create(&labels).set(blind.into());
            wanted.insert(labels);
        }
        for labels in shown.difference(&wanted) {
            self.blind.remove(labels);
        }
        *shown = wanted;
    }

    /// Shows these modes by domain, and no others.
    pub fn show_modes(&self, modes: impl Iterator<Item = (String, &'static str)>) {
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

    pub(super) fn register(&mut self, registry: &mut Registry) {
        registry.register(
            "policy_version",
            "Version of the policies in force, counted from 1",
            self.version.clone(),
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
            self.faulty.clone(),
        );
        registry.register(
            "scale",
            "Share of its limits to which a rule is turned, of rules that are",
            self.scales.clone(),
        );
        registry.register(
            "adaptive_blind",
            "1 for a rule that adapts and gets too few reports, on the replica that controls",
            self.blind.clone(),
        );
        registry.register(
            "mode",
            "1 for the mode of all domains, whose label is empty, and of each that is not enforced",
            self.modes.clone(),
        );
    }
}
