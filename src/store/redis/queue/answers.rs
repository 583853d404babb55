//! The answers to callers, each in a cell that is used again: an answer costs no allocation.
//!
//! A cell belongs to two: to the [`Ticket`], which answers once, and to the caller, who fetches the
//! answer or leaves. It is free again when both are done with it. There is no lock here, and nobody
//! is woken: the queue does that after it has released its lock.

use std::mem;
use std::task::{Poll, Waker};

use slab::Slab;

use crate::store::redis::decided::{Decided, Undecided};

/// The answer to a caller. `None`: it was lost with the task of the connection.
pub(super) type Answer = Option<Result<Decided, Undecided>>;

/// The right to answer a caller once. It must be used: the caller has no timeout of its own.
#[must_use]
#[derive(Debug)]
pub(super) struct Ticket(usize);

/// The answers of a queue.
#[derive(Debug, Default)]
pub(super) struct Answers {
    cells: Slab<Cell>,
    /// The wakers of callers that have got their answers.
    pub(super) woken: Vec<Waker>,
}

#[derive(Debug)]
pub(super) enum Cell {
    Waits(Waker),
    /// The caller has left.
    Left,
    /// The caller has not fetched its answer yet.
    Given(Answer),
}

impl Answers {
    /// A cell for a caller who waits: its number for the caller, and the ticket.
    pub(super) fn open(&mut self, waker: Waker) -> (usize, Ticket) {
        let cell = self.cells.insert(Cell::Waits(waker));
        (cell, Ticket(cell))
    }

    /// Answers the caller. Returns true if it waits.
    pub(super) fn give(&mut self, Ticket(place): Ticket, answer: Answer) -> bool {
        let Some(cell) = self.cells.get_mut(place) else { return false };
        if let Cell::Waits(waker) = mem::replace(cell, Cell::Given(answer)) {
            self.woken.push(waker);
            return true;
        }
        self.cells.try_remove(place);
        false
    }

    /// True if the caller has left.
    pub(super) fn is_left(&self, ticket: &Ticket) -> bool {
        !matches!(self.cells.get(ticket.0), Some(Cell::Waits(_)))
    }

    /// The answer for the caller of `cell`, who is done with the cell then. `waker` is woken when
    /// there is one.
    pub(super) fn fetch(&mut self, cell: usize, waker: &Waker) -> Poll<Answer> {
        if let Some(Cell::Waits(before)) = self.cells.get_mut(cell) {
            before.clone_from(waker);
            return Poll::Pending;
        }
        match self.cells.try_remove(cell) {
            Some(Cell::Given(answer)) => Poll::Ready(answer),
            _ => Poll::Ready(None),
        }
    }

    /// The caller of `cell` leaves. What was in the cell is to be dropped without a lock.
    pub(super) fn leave(&mut self, cell: usize) -> Option<Cell> {
        let left = self.cells.get_mut(cell)?;
        match mem::replace(left, Cell::Left) {
            waits @ Cell::Waits(_) => Some(waits),
            given => {
                self.cells.try_remove(cell);
                Some(given)
            }
        }
    }

    /// The number of cells in use.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.cells.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::StoreError;

    /// A step of one side of a cell.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Open,
        Give(usize),
        Lose(usize),
        Fetch(usize),
        Leave(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let any = any::<usize>();
        prop_oneof![
            Just(Step::Open),
            any.prop_map(Step::Give),
            any.prop_map(Step::Lose),
            any.prop_map(Step::Fetch),
            any.prop_map(Step::Leave),
        ]
    }

    /// A call as both sides see it.
    #[derive(Debug)]
    struct Call {
        name: u64,
        cell: Option<usize>,
        ticket: Option<Ticket>,
        given: Given,
    }

    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    enum Given {
        Nothing,
        Name,
        Lost,
    }

    fn refused(name: u64) -> Result<Decided, Undecided> {
        Err(StoreError::Protocol(name.to_string()).into())
    }

    /// The name in an answer of [`refused`].
    fn name(answer: &Answer) -> Option<u64> {
        match answer {
            Some(Err(Undecided { error: StoreError::Protocol(name), .. })) => name.parse().ok(),
            _ => None,
        }
    }

    fn play(steps: Vec<Step>) {
        let mut answers = Answers::default();
        let mut calls: Vec<Call> = Vec::new();
        for (at, step) in steps.into_iter().enumerate() {
            let pick = |calls: &[Call], n: usize| (!calls.is_empty()).then(|| n % calls.len());
            match step {
                Step::Open => {
                    let (cell, ticket) = answers.open(Waker::noop().clone());
                    let name = at as u64;
                    let (cell, ticket) = (Some(cell), Some(ticket));
                    calls.push(Call { name, cell, ticket, given: Given::Nothing });
                }
                Step::Give(n) | Step::Lose(n) => {
                    let Some(call) = pick(&calls, n).and_then(|n| calls.get_mut(n)) else {
                        continue;
                    };
                    let Some(ticket) = call.ticket.take() else { continue };
                    assert_eq!(answers.is_left(&ticket), call.cell.is_none());
                    let is_given = matches!(step, Step::Give(_));
                    let waits = answers.give(ticket, is_given.then(|| refused(call.name)));
                    assert_eq!(waits, call.cell.is_some());
                    assert_eq!(mem::take(&mut answers.woken).len(), usize::from(waits));
                    call.given = if is_given { Given::Name } else { Given::Lost };
                }
                Step::Fetch(n) => {
                    let Some(call) = pick(&calls, n).and_then(|n| calls.get_mut(n)) else {
                        continue;
                    };
                    let Some(cell) = call.cell else { continue };
                    let Poll::Ready(answer) = answers.fetch(cell, Waker::noop()) else {
                        assert_eq!(call.given, Given::Nothing);
                        continue;
                    };
                    match call.given {
                        Given::Nothing => panic!("{answer:?} comes from nowhere"),
                        Given::Name => assert_eq!(name(&answer), Some(call.name)),
                        Given::Lost => assert!(answer.is_none()),
                    }
                    call.cell = None;
                }
                Step::Leave(n) => {
                    let Some(call) = pick(&calls, n).and_then(|n| calls.get_mut(n)) else {
                        continue;
                    };
                    if let Some(cell) = call.cell.take() {
                        let was = answers.leave(cell);
                        assert_eq!(
                            matches!(was, Some(Cell::Waits(_))),
                            call.given == Given::Nothing
                        );
                    }
                }
            }
            calls.retain(|call| call.cell.is_some() || call.ticket.is_some());
            assert_eq!(answers.len(), calls.len());
        }
    }

    proptest! {
        /// Every caller gets its own answer, and a cell is free when both sides are done with it.
        #[test]
        fn each_caller_gets_its_answer(steps in prop::collection::vec(step(), 0..200)) {
            play(steps);
        }
    }
}
