//! The address of the primary.

use std::fmt;
use std::sync::Arc;

use super::address::Address;
use super::sentinel::Sentinels;

/// The method to find the primary before each attempt to connect.
#[derive(Clone, Debug)]
pub(super) enum Locate {
    /// A fixed address. It may be a name that resolves to another server after a failover.
    Fixed(Address),
    /// The answer of sentinels.
    Sentinel(Arc<Sentinels>),
}

impl Locate {
    /// The current address of the primary.
    ///
    /// # Errors
    /// Fails with a reason for the operator if nobody knows it.
    pub(super) async fn primary(&self) -> Result<Address, String> {
        match self {
            Self::Fixed(address) => Ok(address.clone()),
            Self::Sentinel(sentinels) => sentinels.primary().await,
        }
    }

    /// The address of the primary as far as it is known.
    pub(super) fn known(&self) -> Option<Address> {
        match self {
            Self::Fixed(address) => Some(address.clone()),
            Self::Sentinel(sentinels) => sentinels.known(),
        }
    }

    /// True if `address` is still that of the primary.
    pub(super) fn is_current(&self, address: &Address) -> bool {
        match self {
            Self::Fixed(fixed) => fixed == address,
            Self::Sentinel(sentinels) => sentinels.known().as_ref() == Some(address),
        }
    }

    /// The sentinels, if there are any.
    pub(super) const fn sentinels(&self) -> Option<&Arc<Sentinels>> {
        match self {
            Self::Fixed(_) => None,
            Self::Sentinel(sentinels) => Some(sentinels),
        }
    }
}

impl fmt::Display for Locate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(address) => address.fmt(f),
            Self::Sentinel(sentinels) => sentinels.fmt(f),
        }
    }
}
