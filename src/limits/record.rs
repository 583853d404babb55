//! The error of a record that is not what its key says.

/// The error for a record that is not a client, a plan or a scale.
#[derive(Debug, thiserror::Error)]
#[error("the record of a client, a plan or a scale cannot be read")]
pub struct BadRecord(#[from] serde_json::Error);
