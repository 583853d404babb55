//! Requests over several slots, in one or two rounds; `store/split.rs` has the rules.
//!
//! A request runs to its end in a task of its own: what it has charged in vain is given back also
//! when its caller is gone.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::nodes::Nodes;
use super::route::{self, Missed, Ruling};
use crate::domain::{Amendment, Commit, Group};
use crate::store::redis::pipe::Pipe;
use crate::store::split::{Errand, Next, Shy, Split, give_back};
use crate::store::{Answer, Deadline, Held, Late, LateAnswer, StoreError, Suspects};

/// The least time that must be left for the second round.
const SECOND_ROUND: Duration = Duration::from_millis(2);

/// The rounds of one runtime.
#[derive(Debug)]
pub(super) struct Rounds {
    nodes: Arc<Nodes>,
    suspects: Option<Arc<dyn Suspects>>,
    shy: Mutex<Shy>,
}

/// Charges to give back, and the connection that has charged them.
#[derive(Debug)]
struct Receipt {
    pipe: Arc<Pipe>,
    connection: u64,
    amendments: Vec<Amendment>,
}

/// A request on its way.
struct Run<'a> {
    nodes: &'a Nodes,
    split: Split,
    claims: usize,
    receipts: Vec<Receipt>,
    late: Vec<Late>,
    failure: Option<StoreError>,
}

impl Rounds {
    pub(super) fn new(nodes: Arc<Nodes>, suspects: Option<Arc<dyn Suspects>>) -> Self {
        Self { nodes, suspects, shy: Mutex::default() }
    }

    /// Decides the parts one by one, by the same rule.
    pub(super) async fn each(
        &self,
        split: Split,
        commit: Commit,
        claims: usize,
        deadline: Deadline,
    ) -> Answer {
        let errands = split.each(commit);
        let mut run = Run::new(&self.nodes, split, claims);
        run.ask(errands, deadline.asked_now()).await;
        run.answer().0
    }

    /// Decides all parts together.
    ///
    /// # Cancel safety
    /// A dropped call runs to its end, and then charges nothing.
    pub(super) async fn together(
        self: &Arc<Self>,
        split: Split,
        group: &Group,
        deadline: Deadline,
    ) -> Answer {
        let (rounds, group) = (Arc::clone(self), group.clone());
        let claims = group.claims.len();
        let (sender, answer) = oneshot::channel();
        tokio::spawn(async move {
            let (mut answer, mut held) = rounds.run(split, claims, deadline).await;
            if answer.failure.is_some() {
                answer.held = held.take();
            }
            match sender.send(answer) {
                Ok(()) => held.into_iter().for_each(Held::keep),
                // The charges that are held are given back.
                Err(unheard) => undo_late(&group, unheard.late),
            }
        });
        let ended = || StoreError::Unavailable("the task of a request has ended".to_owned());
        answer.await.unwrap_or_else(|_| Answer::none(claims, ended()))
    }

    /// The answer, and the charges that stand only if it is heard.
    async fn run(&self, split: Split, claims: usize, deadline: Deadline) -> (Answer, Option<Held>) {
        let now = Instant::now();
        let suspects = self.suspects.as_ref();
        let suspect = |claim: &_| suspects.and_then(|suspects| suspects.suspect(claim, now));
        let first = split.first(suspect, self.shy.lock().is_shy(now));
        let mut run = Run::new(&self.nodes, split, claims);
        let mut deadline = deadline.asked(now);
        run.ask(first, deadline).await;
        let admitted = loop {
            let now = Instant::now();
            // Answers after the deadline have come in time: this machine was late.
            deadline = deadline.extended(now).unwrap_or(deadline);
            let left = deadline.due().saturating_duration_since(now);
            match run.split.next(left >= SECOND_ROUND) {
                Next::Ask(errands) => run.ask(errands, deadline).await,
                Next::Deny => break false,
                Next::Admit => break true,
            }
        };
        let (mut answer, receipts) = run.answer();
        if answer.readings.iter().any(Option::is_none) {
            answer.failure.get_or_insert(StoreError::Timeout);
        }
        let in_vain = !admitted && !receipts.is_empty();
        self.shy.lock().note(in_vain, Instant::now());
        let held = Held::new(move || receipts.into_iter().for_each(Receipt::give_back));
        (answer, admitted.then_some(held))
    }
}

impl<'a> Run<'a> {
    fn new(nodes: &'a Nodes, split: Split, claims: usize) -> Self {
        let (receipts, late) = (Vec::new(), Vec::new());
        Self { nodes, split, claims, receipts, late, failure: None }
    }

    /// Runs errands at the same time, and notes what they bring.
    async fn ask(&mut self, errands: Vec<Errand>, deadline: Deadline) {
        let nodes = self.nodes;
        let asked = errands
            .iter()
            .map(|errand| route::rule(nodes, errand.slot, &errand.group, errand.commit, deadline));
        let outcomes = join_all(asked).await;
        for (errand, outcome) in errands.into_iter().zip(outcomes) {
            match outcome {
                Ok(ruling) => self.ruled(&errand, ruling),
                Err(missed) => self.missed(errand, missed),
            }
        }
    }

    fn ruled(&mut self, errand: &Errand, Ruling { ruled, pipe }: Ruling) {
        self.split.note(errand, Some(&ruled.readings));
        let amendments = Split::receipts(errand, &ruled.readings, ruled.at);
        if !amendments.is_empty() {
            self.receipts.push(Receipt { pipe, connection: ruled.connection, amendments });
        }
    }

    fn missed(&mut self, errand: Errand, Missed { error, late }: Missed) {
        self.split.note(&errand, None);
        self.failure.get_or_insert(error);
        let Some(late) = late.filter(|_| errand.commit != Commit::Never) else { return };
        let claims = self.claims;
        self.late.push(Late::new(async move {
            let answer = late.await?;
            let charged = Split::spread(&errand, &answer.charged, claims);
            Some(LateAnswer { charged, ..answer })
        }));
    }

    fn answer(self) -> (Answer, Vec<Receipt>) {
        let Self { split, receipts, late, failure, .. } = self;
        (Answer { readings: split.into_readings().into(), failure, late, held: None }, receipts)
    }
}

impl Receipt {
    /// Once, and nobody waits for it.
    fn give_back(self) {
        self.pipe.amend(self.amendments, self.connection);
    }
}

/// Gives back what was charged too late for a request whose caller is gone.
fn undo_late(group: &Group, late: Vec<Late>) {
    for late in late {
        let group = group.clone();
        tokio::spawn(async move {
            let Some(LateAnswer { charged, at, amend }) = late.await else { return };
            let charged = group.claims.iter().zip(charged).filter(|(_, charged)| *charged);
            let amendments = charged.filter_map(|(claim, _)| give_back(claim, at)).collect();
            amend(amendments);
        });
    }
}
