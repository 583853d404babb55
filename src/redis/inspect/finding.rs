//! The outcome of one check of the server.

/// One thing that was checked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Finding {
    /// The name of the check, such as `permissions`.
    pub(crate) check: &'static str,
    /// The fault, with the next step; `None` if there is none.
    pub(crate) fault: Option<String>,
}
