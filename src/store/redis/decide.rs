//! The answer of one server to one request.

use std::sync::Arc;

use smallvec::SmallVec;
use tokio::sync::oneshot;

use super::decided::{Decided, Undecided};
use super::pipe::Pipe;
use super::queue::Place;
use super::script::{Encoded, readings};
use crate::domain::{Commit, Group, Reading, Timestamp};
use crate::store::{Answer, Deadline, Late, LateAnswer};

/// The readings of a group, one per claim, in the same order.
#[derive(Debug)]
pub(super) struct Ruled {
    pub(super) readings: SmallVec<[Reading; 1]>,
    /// The time of the decision on the clock of Redis.
    pub(super) at: Timestamp,
    /// The connection that has decided.
    pub(super) connection: u64,
}

/// Decides `group` by the only server.
pub(super) async fn decide(
    pipe: &Arc<Pipe>,
    group: &Group,
    commit: Commit,
    deadline: Deadline,
) -> Answer {
    match rule(pipe, group, commit, Place::Anywhere, deadline.asked_now()).await {
        Ok(ruled) => Answer::full(ruled.readings),
        Err(Undecided { error, late, .. }) => {
            let late = late.map(|decided| self::late(pipe, group, commit, decided));
            Answer { late: late.into_iter().collect(), ..Answer::none(group.claims.len(), error) }
        }
    }
}

/// Asks the server behind `pipe` for its readings of `group`.
pub(super) async fn rule(
    pipe: &Pipe,
    group: &Group,
    commit: Commit,
    place: Place,
    deadline: Deadline,
) -> Result<Ruled, Undecided> {
    if group.claims.iter().all(|claim| claim.limit.is_blocked()) {
        let readings = readings(group, &[], Timestamp::EPOCH)?;
        return Ok(Ruled { readings, at: Timestamp::EPOCH, connection: 0 });
    }
    // Before the group is encoded, so that a refusal costs nothing.
    pipe.check()?;
    let asked = pipe.ask(|| Encoded::new(group, commit), place, deadline).await;
    let Decided { integers, at, connection } = asked?;
    Ok(Ruled { readings: readings(group, &integers, at)?, at, connection })
}

/// The outcome of `group`, which was sent to `pipe` and not decided in time.
pub(super) fn late(
    pipe: &Arc<Pipe>,
    group: &Group,
    commit: Commit,
    decided: oneshot::Receiver<Decided>,
) -> Late {
    let (group, pipe) = (group.clone(), Arc::clone(pipe));
    Late::new(async move {
        let Decided { integers, at, connection } = decided.await.ok()?;
        let readings = readings(&group, &integers, at).ok()?;
        let charged = group.charged(commit, |i| readings.get(i).is_some_and(|r| r.passed));
        // On the same connection, so after the charge.
        let amend = move |amendments| pipe.amend(amendments, connection);
        Some(LateAnswer { charged, at, amend: Box::new(amend) })
    })
}
