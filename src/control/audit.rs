//! One log line per change, target `tollgate::audit`: who, what, before, after.
//!
//! Values of descriptors that a rule marks `sensitive` are hashed; of a policy's text, which may hold such values, the line
//! has the hash.

use std::fmt::Display;

use sha2::{Digest as _, Sha256};

use super::record::StoredPolicy;
use crate::limiter::Shared;
use crate::limits::{Client, ClientName};
use crate::telemetry::escape::escape;

/// The word for the state of something that does not exist.
pub(crate) const NOTHING: &str = "none";

/// The author of changes without a caller, such as the deletion of an expired client.
pub(crate) const TOLLGATE: &str = "tollgate";

/// Writes one line. `who`: the caller, or [`TOLLGATE`].
pub(crate) fn changed(who: impl Display, action: &str, what: &str, before: &str, after: &str) {
    tracing::info!(target: "tollgate::audit", %who, action, what, before, after, "changed");
}

/// Writes that a caller was refused.
pub(crate) fn refused(who: impl Display) {
    tracing::warn!(target: "tollgate::audit", %who, "refused: no token, or not the right one");
}

/// A client as lines name it, such as `edge|api_key=acme`.
pub(crate) fn client_title(shared: &Shared, name: &ClientName) -> String {
    format!("{}|{}", escape(name.domain.as_bytes()), descriptor_title(shared, name))
}

/// Its descriptor alone, such as `api_key=acme`.
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

/// A policy by the hash and the length of its text.
pub(crate) fn policy_state(policy: Option<&StoredPolicy>) -> String {
    let Some(policy) = policy else { return NOTHING.to_owned() };
    let mut hash = format!("{:x}", Sha256::digest(&policy.yaml));
    hash.truncate(12);
    format!("sha256 {hash}, {} bytes", policy.yaml.len())
}
