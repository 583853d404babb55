//! The lists of a request, in one box that is used again by the next requests of the thread: each
//! would otherwise take an allocation of its own, and be moved from layer to layer.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

use super::ask::record::Asked;
use super::resolve::resolved::Resolved;
use super::status::outcome::Status;
use crate::domain::Group;

/// The boxes that a thread keeps: those of requests that are decided at the same time, as while
/// Redis decides. One takes a few kilobytes.
const MAX_KEPT: usize = 256;

/// Boxes of requests with more claims are not kept.
const MAX_CLAIMS: usize = 16;

/// The lists of a request.
#[derive(Clone, Debug, Default)]
pub(super) struct Lists {
    pub(super) group: Group,
    /// One per claim of the group, same order.
    pub(super) records: Vec<Asked>,
    /// One per descriptor, as `statuses`, which take their place.
    pub(super) resolved: Vec<Resolved>,
    pub(super) statuses: Vec<Status>,
}

type Kept = RefCell<Vec<Box<Lists>>>;

thread_local!(static KEPT: Kept = const { RefCell::new(Vec::new()) });

impl Lists {
    /// Empty lists, with room if the thread keeps some.
    #[expect(clippy::unnecessary_box_returns, reason = "it is moved through all layers")]
    pub(super) fn take() -> Box<Self> {
        let kept = KEPT.try_with(|kept| kept.borrow_mut().pop());
        kept.ok().flatten().unwrap_or_default()
    }

    /// Keeps the lists for another request.
    fn keep(mut self: Box<Self>) {
        let largest = self.records.capacity().max(self.statuses.capacity());
        if largest > MAX_CLAIMS {
            return;
        }
        self.group.parts.clear();
        self.group.claims.clear();
        self.records.clear();
        self.resolved.clear();
        self.statuses.clear();
        // A thread that ends keeps nothing.
        let _ = KEPT.try_with(|kept| {
            let mut kept = kept.borrow_mut();
            if kept.len() < MAX_KEPT {
                kept.push(self);
            }
        });
    }
}

/// The statuses of a request, one per descriptor, same order.
#[derive(Clone, Debug, Default)]
pub struct Statuses(pub(super) Box<Lists>);

impl Statuses {
    /// Keeps their room for another request.
    pub fn keep(self) {
        self.0.keep();
    }
}

impl Deref for Statuses {
    type Target = Vec<Status>;

    fn deref(&self) -> &Vec<Status> {
        &self.0.statuses
    }
}

impl DerefMut for Statuses {
    fn deref_mut(&mut self) -> &mut Vec<Status> {
        &mut self.0.statuses
    }
}

impl FromIterator<Status> for Statuses {
    fn from_iter<I: IntoIterator<Item = Status>>(statuses: I) -> Self {
        let mut lists = Lists::take();
        lists.statuses.extend(statuses);
        Self(lists)
    }
}

impl<'a> IntoIterator for &'a Statuses {
    type Item = &'a Status;
    type IntoIter = std::slice::Iter<'a, Status>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_kept_up_to_a_number_and_a_size() {
        let kept = || KEPT.with_borrow(Vec::len);
        let statuses = |count| std::iter::repeat_n(Status::default(), count).collect::<Statuses>();
        statuses(MAX_CLAIMS + 1).keep();
        assert_eq!(kept(), 0, "too large");
        let many: Vec<Statuses> = (0..=MAX_KEPT).map(|_| statuses(4)).collect();
        many.into_iter().for_each(Statuses::keep);
        assert_eq!(kept(), MAX_KEPT);
        let again = Lists::take();
        let found = (again.statuses.capacity(), again.statuses.len(), kept());
        assert_eq!(found, (4, 0, MAX_KEPT - 1), "emptied");
    }
}
