//! Scales of rules, as the registry has them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Writer;
use crate::control::registry::Record;
use crate::limits::{Scale, ScaleKey, ScaleSource};
use crate::telemetry::escape::escape;

/// Scales by rule and author.
pub(super) type Stored = BTreeMap<ScaleKey, Scale>;

impl Writer {
    /// The scales that the registry has, ended ones too, as far as this replica has followed it.
    pub fn scales(&self) -> Vec<(ScaleKey, Scale)> {
        let scales = self.scales.lock();
        scales.iter().map(|(key, scale)| (key.clone(), scale.clone())).collect()
    }

    /// The scale of one rule by one author.
    pub fn scale(&self, key: &ScaleKey) -> Option<Scale> {
        self.scales.lock().get(key).cloned()
    }

    pub(super) fn apply_scale(&self, key: ScaleKey, record: Option<Record>) {
        let read = |record: Record| Scale::from_record(&record.value, record.revision);
        let scale = match record.map(read).transpose() {
            Ok(scale) => scale,
            Err(error) => return self.unreadable(&key.record_key(), &error.to_string()),
        };
        // A controller turns its rules every second: the log has the cuts alone.
        if key.source == ScaleSource::Operator {
            let title =
                format!("{}/{}", escape(key.domain.as_bytes()), escape(key.rule.as_bytes()));
            let what = if scale.is_some() { "set" } else { "taken back" };
            self.batch.lock().scales.insert(title, what);
        }
        let mut scales = self.scales.lock();
        // Under the lock, so that of two changes the later one is in force.
        self.shared.policies.scales.set(&key, scale.as_ref());
        match scale {
            Some(scale) => _ = scales.insert(key, scale),
            None => _ = scales.remove(&key),
        }
    }

    pub(super) fn retain_scales(&self, keep: &dyn Fn(&[u8]) -> bool) {
        let keys: Vec<ScaleKey> = self.scales.lock().keys().cloned().collect();
        for key in keys.into_iter().filter(|key| !keep(&key.record_key())) {
            self.apply_scale(key, None);
        }
    }

    /// True if a policy in force has this rule.
    pub fn has_rule(&self, domain: &str, rule: &str) -> bool {
        let snapshot = self.shared.policies.current();
        let mut rules = snapshot.policies.rules().iter();
        rules.any(|known| *known.domain == *domain && known.label == rule)
    }

    /// The rules in force of a domain, as metrics name them.
    pub fn rules_of(&self, domain: &str) -> Vec<Arc<str>> {
        let snapshot = self.shared.policies.current();
        let rules = snapshot.policies.rules().iter().filter(|rule| *rule.domain == *domain);
        rules.map(|rule| rule.label.as_str().into()).collect()
    }
}
