//! The error of a record that is not what its key says.

/// The error for a record that is not a client or a plan.
#[derive(Debug, thiserror::Error)]
#[error("the record of a client or a plan cannot be read")]
pub struct BadRecord(#[from] serde_json::Error);
