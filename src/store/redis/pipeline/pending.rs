//! A command in flight, with all that its reply is for, and what it takes to send it again.

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::domain::Settled;
use crate::store::Deadline;
use crate::store::redis::decided::Undecided;
use crate::store::redis::queue::Taken;
use crate::store::redis::script::AmendFrame;

/// A command in flight.
pub(super) struct Pending {
    pub(super) payload: Payload,
    /// The time by which the connection must answer; afterwards it is closed.
    pub(super) due: Instant,
}

/// The meaning of its reply.
pub(super) enum Payload {
    Frame {
        /// It follows ASKING if its calls must.
        taken: Box<Taken>,
        sent: Instant,
        /// The time after which the frame counts as overdue.
        expected: Deadline,
        /// True if the frame was sent with the text of the script (EVAL).
        with_text: bool,
    },
    Asking,
    /// The script on an empty frame.
    Probe {
        with_text: bool,
    },
    Forget(oneshot::Sender<Result<u32, Undecided>>),
    LogIn,
    Settle {
        frame: Box<AmendFrame>,
        /// The start of each settlement in the frame, and who waits for it.
        waiters: Vec<(usize, oneshot::Sender<Result<Settled, Undecided>>)>,
        asking: bool,
        with_text: bool,
    },
    Amend {
        frame: Box<AmendFrame>,
        /// They are charges that Redis is told of.
        told: bool,
        with_text: bool,
    },
}

impl Payload {
    /// True if it runs a script that the server may not know, by its hash.
    pub(super) const fn may_be_unknown(&self) -> bool {
        matches!(
            self,
            Self::Frame { with_text: false, .. }
                | Self::Amend { with_text: false, .. }
                | Self::Settle { with_text: false, .. }
                | Self::Probe { with_text: false }
        )
    }
}
