//! One log line per change, target [`AUDIT`]: who, what, before, after.
//!
//! Values of descriptors that a rule marks `sensitive` are hashed. Of a policy's text a line has a
//! hash, and the beginning unless it may hold such values. A write without an answer has a line,
//! too: its outcome is unknown.

use std::fmt::Display;

use sha2::{Digest as _, Sha256};

use super::record::{StoredMode, StoredPolicy};
use super::registry::{Record, RegistryError, Written};
use crate::limiter::Shared;
use crate::limits::{Client, ClientName, Plan, PlanKey, Scale, ScaleKey};
use crate::settings::Word as _;
use crate::telemetry::escape::escape;
use crate::telemetry::logs::AUDIT;

/// The word for the state of something that does not exist.
pub(crate) const NOTHING: &str = "none";

/// The word for the mode of a domain, or of all, that no operator has set.
const BY_SETTINGS: &str = "by settings";

/// The author of changes without a caller, such as the deletion of an expired client.
pub(crate) const TOLLGATE: &str = "tollgate";

/// The longest part of a policy's text in a line, in bytes.
const MAX_TEXT_BYTES: usize = 4_096;

/// The state of something, as lines have it.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    summary: String,
    /// The beginning of its text; of policies alone.
    text: Option<String>,
}

impl<S: Into<String>> From<S> for State {
    fn from(summary: S) -> Self {
        Self { summary: summary.into(), text: None }
    }
}

/// A write under way: its lines are written when its outcome is known, and as of an unknown outcome
/// when it is dropped before.
#[derive(Debug)]
pub(crate) struct Attempt {
    who: String,
    lines: Vec<Line>,
}

/// One change of an attempt.
#[derive(Debug)]
struct Line {
    action: &'static str,
    what: String,
    after: State,
    /// The state that a record holds.
    state: Describe,
}

/// Describes the state of a record; none: there is none.
pub(crate) type Describe = fn(Option<&Record>) -> State;

impl Attempt {
    /// A write by `who`: the caller, or [`TOLLGATE`].
    pub(crate) fn by(who: impl Display) -> Self {
        Self { who: who.to_string(), lines: Vec::new() }
    }

    /// With the next change of the write; a write may have more changes than lines. `state` says
    /// what the record before was.
    pub(crate) fn and(
        mut self,
        action: &'static str,
        what: impl Into<String>,
        after: impl Into<State>,
        state: Describe,
    ) -> Self {
        self.lines.push(Line { action, what: what.into(), after: after.into(), state });
        self
    }

    /// Writes the lines. A write that certainly did not happen has none.
    pub(crate) fn settle(mut self, outcome: &Result<Written, RegistryError>) {
        match outcome {
            Ok(written) => {
                for (line, before) in std::mem::take(&mut self.lines).iter().zip(&written.before) {
                    let before = (line.state)(before.as_ref());
                    self.done(line, &before);
                }
            }
            Err(RegistryError::Unknown(reason)) => self.unknown(reason),
            Err(_) => self.lines.clear(),
        }
    }

    fn done(&self, line: &Line, before: &State) {
        let Line { action, what, after, .. } = line;
        tracing::info!(
            target: AUDIT, who = self.who, action, what,
            before = before.summary, after = after.summary,
            text_before = before.text, text_after = after.text,
            outcome = "done", "changed"
        );
    }

    fn unknown(&mut self, reason: &str) {
        for Line { action, what, after, .. } in std::mem::take(&mut self.lines) {
            tracing::warn!(
                target: AUDIT, who = self.who, action, what,
                after = after.summary, text_after = after.text,
                outcome = "unknown", reason, "may have changed"
            );
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.unknown("the caller left before the answer");
    }
}

/// Writes one line for a change of something that is no record.
pub(crate) fn changed(who: impl Display, action: &str, what: &str, before: &str, after: &str) {
    tracing::info!(
        target: AUDIT, %who, action, what, before, after,
        outcome = "done", "changed"
    );
}

/// Writes one line for a change of this replica's memory alone.
pub(crate) fn changed_in_memory(
    who: impl Display,
    action: &str,
    what: &str,
    before: &str,
    after: &str,
) {
    tracing::warn!(
        target: AUDIT, %who, action, what, before, after,
        outcome = "in memory", "changed on this replica alone, and not stored"
    );
}

/// Writes that a caller was refused for `reason`, and how many were since without a line.
pub(crate) fn refused(who: impl Display, reason: &str, silent: u64) {
    tracing::warn!(target: AUDIT, %who, reason, silent, "refused");
}

/// A client as lines name it, such as `edge|api_key=acme`.
pub(crate) fn client_title(shared: &Shared, name: &ClientName) -> String {
    format!("{}|{}", escape(name.domain.as_bytes()), descriptor_title(shared, name))
}

/// Its descriptor alone, such as `api_key=acme`, sensitive values hashed.
pub(crate) fn descriptor_title(shared: &Shared, name: &ClientName) -> String {
    shared.resolver.client_title(name, &shared.policies.current())
}

/// A client without its name.
pub(crate) fn client_state(client: Option<&Client>) -> String {
    let Some(client) = client else { return NOTHING.to_owned() };
    let mut state = serde_json::to_value(client).unwrap_or_default();
    if let Some(fields) = state.as_object_mut() {
        fields.remove("domain");
        fields.remove("entries");
    }
    state.to_string()
}

/// A plan as lines name it, such as `edge|plan gold`.
pub(crate) fn plan_title(key: &PlanKey) -> String {
    format!("{}|plan {}", escape(key.domain.as_bytes()), key.name)
}

/// A plan without its name.
pub(crate) fn plan_state(plan: &Plan) -> String {
    let mut state = serde_json::to_value(plan).unwrap_or_default();
    if let Some(fields) = state.as_object_mut() {
        fields.remove("domain");
        fields.remove("name");
    }
    state.to_string()
}

/// The plan that a record holds.
pub(crate) fn plan_record(record: Option<&Record>) -> State {
    let Some(record) = record else { return NOTHING.into() };
    match Plan::from_record(&record.value, record.revision) {
        Ok(plan) => plan_state(&plan).into(),
        Err(error) => error.to_string().into(),
    }
}

/// A scale as lines name it, such as `edge|scale of api_key`.
pub(crate) fn scale_title(key: &ScaleKey) -> String {
    let (domain, rule) = (escape(key.domain.as_bytes()), escape(key.rule.as_bytes()));
    format!("{domain}|scale of {rule}")
}

/// A scale without its name.
pub(crate) fn scale_state(scale: &Scale) -> String {
    serde_json::to_value(scale).unwrap_or_default().to_string()
}

/// The scale that a record holds.
pub(crate) fn scale_record(record: Option<&Record>) -> State {
    let Some(record) = record else { return NOTHING.into() };
    match Scale::from_record(&record.value, record.revision) {
        Ok(scale) => scale_state(&scale).into(),
        Err(error) => error.to_string().into(),
    }
}

/// The subject of a mode: a domain, or all.
pub(crate) fn mode_title(domain: &[u8]) -> String {
    if domain.is_empty() { "all".to_owned() } else { escape(domain).to_string() }
}

/// A mode by its name.
pub(crate) fn mode_state(mode: Option<StoredMode>) -> &'static str {
    mode.map_or(BY_SETTINGS, |stored| stored.mode.word())
}

/// The mode that a record holds.
pub(crate) fn mode_record(record: Option<&Record>) -> State {
    let Some(record) = record else { return mode_state(None).into() };
    StoredMode::read(&record.value)
        .map_or_else(|error| error.to_string().into(), |mode| mode_state(Some(mode)).into())
}

/// The client that a record holds.
pub(crate) fn client_record(record: Option<&Record>) -> State {
    let Some(record) = record else { return NOTHING.into() };
    match Client::from_record(&record.value, record.revision) {
        Ok(client) => client_state(Some(&client)).into(),
        Err(error) => error.to_string().into(),
    }
}

/// A policy by the hash and the length of its text, and the beginning of the text.
pub(crate) fn policy_state(policy: &StoredPolicy) -> State {
    let mut hash = format!("{:x}", Sha256::digest(&policy.yaml));
    hash.truncate(12);
    let summary = format!("sha256 {hash}, {} bytes", policy.yaml.len());
    State { summary, text: Some(shown_text(&policy.yaml)) }
}

/// The policy that a record holds.
pub(crate) fn policy_record(record: Option<&Record>) -> State {
    let Some(record) = record else { return NOTHING.into() };
    match StoredPolicy::read(&record.value) {
        Ok(policy) => policy_state(&policy),
        Err(error) => error.to_string().into(),
    }
}

/// The beginning of a policy's text. It is withheld where it may hold sensitive values: those of
/// nodes marked `sensitive`, a word that an escape may spell.
fn shown_text(yaml: &str) -> String {
    if yaml.contains("sensitive") || yaml.contains('\\') {
        return "withheld: it may hold sensitive values; see GetPolicy".to_owned();
    }
    if yaml.len() <= MAX_TEXT_BYTES {
        return yaml.to_owned();
    }
    let end = yaml.floor_char_boundary(MAX_TEXT_BYTES);
    let (shown, cut) = yaml.split_at(end);
    format!("{shown}... cut, {} bytes more", cut.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_and_sensitive_ones_withheld() {
        assert_eq!(shown_text("domain: d"), "domain: d");
        let long = format!("{}é{}", "a".repeat(MAX_TEXT_BYTES - 1), "b".repeat(10));
        let shown = shown_text(&long);
        let cut = shown.strip_prefix(&"a".repeat(MAX_TEXT_BYTES - 1)).unwrap();
        assert_eq!(cut, "... cut, 12 bytes more");
        for secret in ["{value: x, sensitive: true}", r#"{"s\x65nsitive": true}"#] {
            assert!(!shown_text(secret).contains('{'), "{secret}");
        }
    }
}
