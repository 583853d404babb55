//! The decision of Redis on a group, or the reason why there is none.

use tokio::sync::oneshot;

use super::script::Integers;
use crate::domain::Timestamp;
use crate::redis::cluster::Redirect;
use crate::store::StoreError;

/// The decision of Redis on a group.
#[derive(Debug)]
pub(super) struct Decided {
    pub(super) integers: Integers,
    /// The time of the decision on the clock of Redis.
    pub(super) at: Timestamp,
    /// The number of the connection that has decided.
    pub(super) connection: u64,
}

/// The reason why Redis did not decide.
#[derive(Clone, Debug)]
pub(super) struct Refused {
    pub(super) error: StoreError,
    /// Another node decides. This one has run nothing.
    pub(super) redirect: Option<Redirect>,
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self { error, redirect: None }
    }
}

/// A call that Redis did not decide in time.
#[derive(Debug)]
pub(super) struct Undecided {
    pub(super) error: StoreError,
    /// The decision of Redis after all, if the call was sent.
    pub(super) late: Option<oneshot::Receiver<Decided>>,
    /// Another node decides.
    pub(super) redirect: Option<Redirect>,
}

impl From<StoreError> for Undecided {
    fn from(error: StoreError) -> Self {
        Refused::from(error).into()
    }
}

impl From<Refused> for Undecided {
    fn from(Refused { error, redirect }: Refused) -> Self {
        Self { error, late: None, redirect }
    }
}
