//! The replies of Redis, read as answers for those who wait.

use tokio::sync::oneshot;

use crate::domain::Settled;
use crate::redis::Address;
use crate::redis::cluster::redirect;
use crate::redis::resp::Message;
use crate::store::StoreError;
use crate::store::redis::decided::{Refused, Undecided};
use crate::store::redis::script::{AmendFrame, Reply, outcome};

/// Checks that a reply has the length for groups of these counts. If not, the connection is closed,
/// because a misaligned reply would shift the answers of all later frames.
pub(super) fn aligned(
    reply: Result<Reply, StoreError>,
    counts: &[usize],
) -> (Result<Reply, StoreError>, Option<String>) {
    match reply {
        Ok(reply) if reply.is_of(counts) => (Ok(reply), None),
        Ok(_) => misaligned("a list of the wrong length"),
        Err(error) => (Err(error.clone()), Some(error.to_string())),
    }
}

pub(super) fn misaligned(what: &str) -> (Result<Reply, StoreError>, Option<String>) {
    let error = StoreError::Protocol(what.to_owned());
    let reason = error.to_string();
    (Err(error), Some(reason))
}

/// The error code: the first word of an error reply.
pub(in crate::store::redis) fn code(text: &str) -> &str {
    text.split(' ').next().unwrap_or_default()
}

/// The amounts that amendments have applied.
pub(super) fn applied(frame: &AmendFrame, message: Message) -> Result<Vec<u64>, StoreError> {
    match message {
        Message::Integers(amounts) => frame.amounts(amounts),
        Message::Error(text) => Err(StoreError::Rejected(text)),
        Message::Integer(_) | Message::Text(_) => {
            Err(StoreError::Protocol("no list of integers".to_owned()))
        }
    }
}

/// Gives each waiter the outcome of its settlement.
pub(super) fn answer_settled(
    frame: &AmendFrame,
    waiters: Vec<(usize, oneshot::Sender<Result<Settled, Undecided>>)>,
    message: Message,
    node: Option<&Address>,
) {
    let redirect = match &message {
        Message::Error(text) => node.and_then(|node| redirect(text, node)),
        _ => None,
    };
    let amounts = applied(frame, message);
    for (begins, answer) in waiters {
        let settled = match &amounts {
            Ok(amounts) => outcome(amounts.get(begins).copied().unwrap_or(u64::MAX)),
            Err(error) => Err(error.clone()),
        };
        let refused = |error| Refused { error, redirect: redirect.clone() };
        drop(answer.send(settled.map_err(|error| refused(error).into())));
    }
}

/// The number of counters that were not empty.
pub(super) fn emptied(message: Message, node: Option<&Address>) -> Result<u32, Refused> {
    match message {
        Message::Integer(count) => u32::try_from(count)
            .map_err(|_| StoreError::Protocol(format!("{count} counters were emptied")).into()),
        Message::Integers(_) | Message::Text(_) => {
            Err(StoreError::Protocol("no single integer".to_owned()).into())
        }
        Message::Error(text) => {
            let redirect = node.and_then(|node| redirect(&text, node));
            Err(Refused { error: StoreError::Rejected(text), redirect })
        }
    }
}
