//! Buffers of requests that are over, used again by the next ones of the thread: a request of one
//! limit would otherwise take an allocation for each of its lists.

use std::cell::RefCell;
use std::mem;
use std::ops::{Deref, DerefMut};
use std::thread::LocalKey;

use super::ask::Asked;
use super::resolve::Resolved;
use super::status::Status;
use crate::domain::{Claim, Part};

/// Buffers of a kind that a thread keeps: those of requests that are decided at the same time.
const MAX_KEPT: usize = 32;

/// Larger buffers are not kept.
const MAX_ITEMS: usize = 16;

/// The buffers of a thread.
type Kept<T> = LocalKey<RefCell<Vec<Vec<T>>>>;

/// An item of lists whose buffers are used again.
pub trait Item: Sized + 'static {
    /// The buffers that the thread keeps.
    fn kept() -> &'static Kept<Self>;
}

macro_rules! items {
    ($($item:ty),*) => {$(
        impl Item for $item {
            fn kept() -> &'static Kept<Self> {
                thread_local!(static KEPT: RefCell<Vec<Vec<$item>>> = const { RefCell::new(Vec::new()) });
                &KEPT
            }
        }
    )*};
}

items!(Part, Claim, Asked, Resolved, Status);

/// An empty list, with room if the thread keeps some.
pub(super) fn take<T: Item>() -> Vec<T> {
    let kept = T::kept().try_with(|kept| kept.borrow_mut().pop());
    kept.ok().flatten().unwrap_or_default()
}

/// Keeps the buffer of a list.
pub(super) fn keep<T: Item>(mut list: Vec<T>) {
    if list.capacity() == 0 || list.capacity() > MAX_ITEMS {
        return;
    }
    list.clear();
    // A thread that ends keeps nothing.
    let _ = T::kept().try_with(|kept| {
        let mut kept = kept.borrow_mut();
        if kept.len() < MAX_KEPT {
            kept.push(list);
        }
    });
}

/// A list whose buffer is used again.
#[derive(Clone, Debug)]
pub struct Reused<T: Item>(Vec<T>);

impl<T: Item> Default for Reused<T> {
    fn default() -> Self {
        Self(take())
    }
}

impl<T: Item> Drop for Reused<T> {
    fn drop(&mut self) {
        keep(mem::take(&mut self.0));
    }
}

impl<T: Item> Deref for Reused<T> {
    type Target = Vec<T>;

    fn deref(&self) -> &Vec<T> {
        &self.0
    }
}

impl<T: Item> DerefMut for Reused<T> {
    fn deref_mut(&mut self) -> &mut Vec<T> {
        &mut self.0
    }
}

impl<T: Item> FromIterator<T> for Reused<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        let mut list = Self::default();
        list.extend(items);
        list
    }
}

impl<'a, T: Item> IntoIterator for &'a Reused<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_kept_up_to_a_number_and_a_size() {
        let kept = || Part::kept().with_borrow(Vec::len);
        keep(Vec::<Part>::with_capacity(MAX_ITEMS + 1));
        drop(Reused::<Part>::default());
        assert_eq!(kept(), 0, "too large, and nothing");
        (0..=MAX_KEPT).for_each(|_| keep(Vec::<Part>::with_capacity(4)));
        assert_eq!(kept(), MAX_KEPT);
        let part = Part { quota: false, shadow: false, claims: 0..1 };
        let again = Reused::from_iter([part]);
        assert_eq!((again.capacity(), again.len(), kept()), (4, 1, MAX_KEPT - 1));
        drop(again);
        assert_eq!((kept(), take::<Part>().len()), (MAX_KEPT, 0), "emptied");
    }
}
