//! The order of calls, late and abandoned calls, and callers on other threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Either, select};
use tokio::time::sleep;

use super::*;
use crate::domain::{Commit, Group, Timestamp};
use crate::store::redis::decided::Decided;
use crate::store::redis::script::Reply;

type Call = BoxFuture<'static, Result<Answer, PushError>>;

/// The answer to a call, if there is one.
fn poll(call: &mut Call) -> Option<Result<Answer, PushError>> {
    call.now_or_never()
}

fn is_late(call: &mut Call) -> bool {
    let undecided = poll(call).map(|answer| answer.unwrap().unwrap().unwrap_err());
    undecided.is_some_and(|undecided| undecided.error == StoreError::Timeout)
}

fn queue(max_calls: usize) -> (Queue, Instant) {
    (Queue::new(max_calls), Instant::now())
}

fn group() -> Result<Encoded, StoreError> {
    Encoded::new(&Group { parts: vec![], claims: vec![] }, Commit::Together)
}

/// A call that is not polled yet.
fn call_to(queue: &Queue, deadline: Instant, place: Place) -> Call {
    let queue = queue.clone();
    async move { queue.ask(group, place, deadline.into()).await }.boxed()
}

/// A call that is queued.
fn push_to(queue: &Queue, deadline: Instant, place: Place) -> Call {
    let mut call = call_to(queue, deadline, place);
    assert!(poll(&mut call).is_none());
    call
}

fn push(queue: &Queue, deadline: Instant) -> Call {
    push_to(queue, deadline, Place::Anywhere)
}

/// The place of the next frame, and the number of its calls.
fn frame(queue: &Queue, max_claims: usize) -> (Option<Place>, usize) {
    let mut taken = queue.empty_frame();
    queue.next_frame(max_claims, &mut taken);
    (taken.place, taken.waiters.len())
}

#[test]
fn wanted_calls_and_earlier_deadlines_wake_the_task() {
    let (queue, now) = queue(8);
    let (soon, later) = (now + Duration::from_secs(1), now + Duration::from_secs(2));
    assert_eq!(queue.changed(true, None).now_or_never(), None);
    let _first = push(&queue, later);
    assert_eq!(queue.changed(false, None).now_or_never(), Some(()));
    assert_eq!(queue.changed(false, Some(later)).now_or_never(), None);
    assert_eq!(queue.changed(true, Some(later)).now_or_never(), Some(()));
    let _second = push(&queue, soon);
    assert_eq!(queue.alarm(), Some(soon));
    assert_eq!(queue.changed(false, Some(later)).now_or_never(), Some(()));
}

#[test]
fn late_calls_are_answered_and_the_alarm_moves_to_the_next_deadline() {
    let (queue, now) = queue(8);
    let [first, second, third] = [1, 2, 3].map(|ms| now + Duration::from_millis(ms));
    let [mut a, mut b, mut c] = [first, third, first].map(|due| push(&queue, due));
    queue.expire(first);
    assert_eq!((is_late(&mut a), poll(&mut b).is_none(), is_late(&mut c)), (true, true, true));
    assert_eq!(queue.alarm(), Some(third));
    queue.set_alarm(second);
    assert_eq!(queue.alarm(), Some(second));
    queue.expire(third);
    assert!(is_late(&mut b));
    assert_eq!(queue.alarm(), None);
}

#[test]
fn late_and_abandoned_calls_are_skipped() {
    let (queue, now) = queue(8);
    let mut late = push(&queue, now);
    drop(push(&queue, now + Duration::from_mins(1)));
    let waited_for = push(&queue, now + Duration::from_mins(1));
    assert_eq!(frame(&queue, 8).1, 1);
    assert!(is_late(&mut late));
    assert_eq!(frame(&queue, 8).1, 0);
    drop(waited_for);
    assert_eq!(queue.shared.lock().answers.len(), 0);
}

#[test]
fn closed_queue_drops_its_calls_and_rejects_new_ones() {
    let (queue, now) = queue(8);
    let mut call = push(&queue, now);
    queue.close();
    assert!(matches!(poll(&mut call), Some(Ok(None))));
    let refused = poll(&mut call_to(&queue, now, Place::Anywhere));
    assert!(matches!(refused, Some(Err(PushError::Closed))));
}

#[test]
fn full_queue_rejects_calls() {
    let (queue, now) = queue(2);
    let _calls = [push(&queue, now), push(&queue, now)];
    let refused = poll(&mut call_to(&queue, now, Place::Anywhere));
    assert!(matches!(refused, Some(Err(PushError::Full))));
}

/// As when the task of the connection panics.
#[test]
fn calls_of_a_frame_that_is_dropped_are_lost() {
    let (queue, now) = queue(8);
    let [mut a, b] = [(); 2].map(|()| push(&queue, now + Duration::from_mins(1)));
    drop(b);
    let mut taken = queue.empty_frame();
    queue.next_frame(8, &mut taken);
    assert!(poll(&mut a).is_none());
    drop(taken);
    assert!(matches!(poll(&mut a), Some(Ok(None))));
    assert_eq!(queue.shared.lock().answers.len(), 0);
}

#[test]
fn frame_has_calls_of_one_slot_in_their_order() {
    let (queue, now) = queue(1_000);
    let due = now + Duration::from_mins(1);
    let order = [1, 2, 1, 3, 2, 1].map(Place::Slot);
    let _calls: Vec<_> = order.iter().map(|place| push_to(&queue, due, *place)).collect();
    let _asking = [(); 2].map(|()| push_to(&queue, due, Place::Asking));
    let frame = || frame(&queue, 8);
    let slot = |slot| Some(Place::Slot(slot));
    assert_eq!([frame(), frame(), frame()], [(slot(1), 3), (slot(2), 2), (slot(3), 1)]);
    let asking = (Some(Place::Asking), 1);
    assert_eq!([frame(), frame(), frame()], [asking, asking, (None, 0)]);
}

#[test]
fn calls_far_behind_wait_for_a_later_frame() {
    let (queue, now) = queue(1_000);
    let due = now + Duration::from_mins(1);
    let mut calls = vec![push_to(&queue, due, Place::Slot(1))];
    calls.extend((0..LOOK_AHEAD).map(|_| push_to(&queue, due, Place::Slot(2))));
    calls.push(push_to(&queue, due, Place::Slot(1)));
    assert_eq!([(); 3].map(|()| frame(&queue, 1_000).1), [1, LOOK_AHEAD, 1]);
}

/// Answers every call that is queued with the number of its slot, and loses some, until `done`.
async fn answer_all(queue: Queue, done: Arc<AtomicBool>) {
    let mut taken = queue.empty_frame();
    let mut frames = 0;
    while !done.load(Ordering::Acquire) {
        queue.next_frame(1_000, &mut taken);
        let Some(Place::Slot(slot)) = taken.place else {
            tokio::task::yield_now().await;
            continue;
        };
        frames += 1;
        if frames % 7 == 0 {
            taken = queue.empty_frame();
            continue;
        }
        taken.waiters.answer(|| {
            let integers = Reply::new(vec![0, 5]).unwrap().next_group(0);
            Ok(Decided { integers, at: Timestamp::EPOCH, connection: slot.into() })
        });
        taken.clear();
    }
}

/// Callers on several threads, some of which leave at any time: everyone else gets its own answer
/// or learns that it is lost, and no cell stays in use.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn callers_on_other_threads_get_their_own_answers() {
    const CALLERS: u16 = 64;
    const CALLS: u64 = 500;
    let (queue, now) = queue(1_000);
    let due = now + Duration::from_mins(5);
    let done = Arc::new(AtomicBool::new(false));
    let task = tokio::spawn(answer_all(queue.clone(), Arc::clone(&done)));
    let counts = Arc::new([(); 3].map(|()| AtomicU64::new(0)));
    let callers = (0..CALLERS).map(|caller| {
        let (queue, counts) = (queue.clone(), Arc::clone(&counts));
        tokio::spawn(async move {
            for call in 0..CALLS {
                let asked = call_to(&queue, due, Place::Slot(caller));
                let patience = if call % 3 == 0 { Duration::ZERO } else { Duration::from_mins(5) };
                let outcome = match select(asked, Box::pin(sleep(patience))).await {
                    Either::Left((Ok(Some(Ok(Decided { connection, .. }))), _)) => {
                        assert_eq!(connection, u64::from(caller));
                        0
                    }
                    Either::Left((Ok(None), _)) => 1,
                    Either::Left((other, _)) => panic!("{other:?}"),
                    Either::Right(_) => 2,
                };
                counts.get(outcome).unwrap().fetch_add(1, Ordering::Relaxed);
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
    done.store(true, Ordering::Release);
    task.await.unwrap();
    frame(&queue, 1_000);
    assert_eq!(queue.shared.lock().answers.len(), 0);
    let counts = counts.each_ref().map(|count| count.load(Ordering::Relaxed));
    assert_eq!(counts.iter().sum::<u64>(), u64::from(CALLERS) * CALLS);
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}
