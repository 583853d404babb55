//! Remarks of the start about the sources of settings.

/// A remark about a source, for the log of the start.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Remark {
    /// The operator should do something.
    Warning(String),
    /// A variable, and the setting that it became.
    Info(String),
    /// A variable for which nothing is to be done.
    Detail(String),
}
