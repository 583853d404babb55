//! What the start says of the sources of settings.

/// A remark about a source, for the log of the start.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Remark {
    /// The operator should do something.
    Warning(String),
    /// What became of a variable.
    Info(String),
    /// What became of a variable that needs nothing.
    Detail(String),
}
