//! The address of the primary.

use std::fmt;

use super::address::Address;

/// The method to find the primary before each attempt to connect.
#[derive(Clone, Debug)]
pub(super) enum Locate {
    /// A fixed address. It may be a name that resolves to another server after a failover.
    Fixed(Address),
}

impl Locate {
    /// The current address of the primary.
    pub(super) const fn primary(&self) -> &Address {
        match self {
            Self::Fixed(address) => address,
        }
    }
}

impl fmt::Display for Locate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.primary().fmt(f)
    }
}
