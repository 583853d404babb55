//! The targets of lines that may have a file of their own.

/// The target of audit lines.
pub const AUDIT: &str = "tollgate::audit";

/// The target of lines of denials.
pub const DENIED: &str = "tollgate::denied";
