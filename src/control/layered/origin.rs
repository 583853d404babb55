//! The feeds of policies and their precedence.

/// The feeds of policies, by precedence: the first one that has a policy of a domain wins.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Origin {
    /// Policy files.
    Files,
    /// Policies that operators applied at run time.
    Registry,
}

impl Origin {
    /// The word in logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Registry => "registry",
        }
    }
}
