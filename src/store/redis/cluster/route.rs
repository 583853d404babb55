//! The way of a call to the node that has its slot.
//!
//! | reply | was it run | then |
//! |---|---|---|
//! | MOVED | no | to the node that it names, which has the slot from now on |
//! | ASK | no | ASKING and the call to the node that it names, this once |
//! | TRYAGAIN | no | again after 2 ms, once |
//! | another error | no | the failure mode decides |
//! | none | perhaps | never again |
//!
//! A call is redirected twice at most, and only while there is time left.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::nodes::Nodes;
use crate::domain::{Commit, Group, Key, Settled, Settlement};
use crate::redis::Address;
use crate::redis::cluster::Redirect;
use crate::store::redis::decide::{self, Ruled};
use crate::store::redis::decided::Undecided;
use crate::store::redis::pipe::Pipe;
use crate::store::redis::queue::Place;
use crate::store::{Deadline, Late, StoreError};

const MAX_REDIRECTS: u8 = 2;

/// The least time that must be left for another attempt.
const LEAST_LEFT: Duration = Duration::from_millis(1);

/// The wait before a command is tried again whose keys are on their way to another node.
const AGAIN_AFTER: Duration = Duration::from_millis(2);

/// A call that was not decided.
#[derive(Debug)]
pub(super) struct Missed {
    pub(super) error: StoreError,
    pub(super) late: Option<Late>,
}

/// A decision, and the pipe that has brought it.
#[derive(Debug)]
pub(super) struct Ruling {
    pub(super) ruled: Ruled,
    pub(super) pipe: Arc<Pipe>,
}

/// Decides `group`, whose keys are in `slot`.
pub(super) async fn rule(
    nodes: &Nodes,
    slot: u16,
    group: &Group,
    commit: Commit,
    deadline: Deadline,
) -> Result<Ruling, Missed> {
    let mut route = Route::new(nodes, slot);
    loop {
        let (pipe, asking) = route.pipe().map_err(|error| Missed { error, late: None })?;
        let place = if asking { Place::Asking } else { Place::Slot(slot) };
        match decide::rule(&pipe, group, commit, place, deadline).await {
            Ok(ruled) => return Ok(Ruling { ruled, pipe }),
            Err(Undecided { error, late, redirect }) => {
                let late = late.map(|decided| decide::late(&pipe, group, commit, decided));
                let Some(redirect) = redirect else { return Err(Missed { error, late }) };
                let followed = route.follow(redirect, error, deadline).await;
                followed.map_err(|error| Missed { error, late })?;
            }
        }
    }
}

/// Resets the counters of `keys`, which are in `slot`.
pub(super) async fn forget(
    nodes: &Nodes,
    slot: u16,
    keys: Vec<Key>,
    deadline: Deadline,
) -> Result<u32, StoreError> {
    let mut route = Route::new(nodes, slot);
    loop {
        let (pipe, asking) = route.pipe()?;
        match pipe.forget(keys.clone(), asking, deadline).await {
            Ok(count) => return Ok(count),
            Err(Undecided { error, redirect: None, .. }) => return Err(error),
            Err(Undecided { error, redirect: Some(redirect), .. }) => {
                route.follow(redirect, error, deadline).await?;
            }
        }
    }
}

/// Settles a hold on counters of one slot.
pub(super) async fn settle(
    nodes: &Nodes,
    settlement: Settlement,
    deadline: Deadline,
) -> Result<Settled, StoreError> {
    let mut route = Route::new(nodes, settlement.guard.key.slot());
    loop {
        let (pipe, asking) = route.pipe()?;
        match pipe.settle(settlement.clone(), asking).await {
            Ok(settled) => return Ok(settled),
            Err(Undecided { error, redirect: None, .. }) => return Err(error),
            Err(Undecided { error, redirect: Some(redirect), .. }) => {
                route.follow(redirect, error, deadline).await?;
            }
        }
    }
}

/// The attempts of one call.
struct Route<'a> {
    nodes: &'a Nodes,
    slot: u16,
    /// The node to ask this once.
    asked: Option<Address>,
    redirects: u8,
    again: bool,
}

impl<'a> Route<'a> {
    const fn new(nodes: &'a Nodes, slot: u16) -> Self {
        Self { nodes, slot, asked: None, redirects: 0, again: false }
    }

    /// The pipe for the next attempt; true if its node must be told that it is asked this once.
    fn pipe(&self) -> Result<(Arc<Pipe>, bool), StoreError> {
        match &self.asked {
            Some(address) => Ok((self.nodes.at(address)?, true)),
            None => Ok((self.nodes.of_slot(self.slot)?, false)),
        }
    }

    /// Prepares another attempt after `redirect`.
    ///
    /// # Errors
    /// Fails if there must be none, because of `error`.
    async fn follow(
        &mut self,
        redirect: Redirect,
        error: StoreError,
        deadline: Deadline,
    ) -> Result<(), StoreError> {
        let over = || StoreError::Unavailable(format!("redirected too often or too late: {error}"));
        if let Redirect::Moved { slot, to } = &redirect {
            self.nodes.cluster.moved(*slot, to.as_ref());
        }
        let now = Instant::now();
        // A redirection after the deadline has come in time: this machine was late.
        let due = deadline.extended(now).unwrap_or(deadline).due();
        let left = due.saturating_duration_since(now);
        self.asked = None;
        match redirect {
            Redirect::Again if !self.again && left >= AGAIN_AFTER + LEAST_LEFT => {
                self.again = true;
                sleep(AGAIN_AFTER).await;
                return Ok(());
            }
            Redirect::Moved { to: Some(_), .. } => {}
            Redirect::Ask(to) => self.asked = Some(to),
            Redirect::Again | Redirect::Moved { to: None, .. } => return Err(over()),
        }
        self.redirects += 1;
        if self.redirects > MAX_REDIRECTS || left < LEAST_LEFT {
            return Err(over());
        }
        Ok(())
    }
}
