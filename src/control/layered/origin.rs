//! The feeds of policies and their precedence.

/// The feeds of policies, by precedence: the first one that has a policy of a domain wins.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Origin {
    /// Policy files.
    Files,
    /// A control plane.
    Xds,
    /// Policies that operators applied at run time.
    Registry,
}

impl Origin {
    /// True if it may leave no policy where it had some: a control plane says so when its last
    /// gateway goes, but a directory is emptied by mistake.
    pub(super) const fn may_become_empty(self) -> bool {
        matches!(self, Self::Xds)
    }

    /// The word in logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Xds => "xds",
            Self::Registry => "registry",
        }
    }
}
