//! Replies that do not fit, and ASKING, over a pipeline without a socket.

use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::*;
use crate::domain::{Algorithm, Charge, Claim, Commit, Group, Hits, Key, Limit, Part};
use crate::redis::cluster::Redirect;
use crate::store::redis::script::Encoded;

/// A call that was taken from its queue, and the answer to it.
fn call() -> (Box<Taken>, BoxFuture<'static, Result<Decided, Undecided>>) {
    let period = Duration::from_secs(1);
    let limit = Limit::new(9, period, Algorithm::FixedWindow, Charge::Admitted).unwrap();
    let (key, hits) = (Key::new(&b"k"[..]), Hits::Take(1));
    let claims = vec![Claim { key, limit, hits, lease: None }];
    let group = Group { parts: vec![Part { quota: false, shadow: false, claims: 0..1 }], claims };
    let (queue, deadline) = (Queue::new(1), Instant::now() + period);
    let (asks, mut taken) = (queue.clone(), Box::new(queue.empty_frame()));
    let asked = async move {
        asks.ask(|| Encoded::new(&group, Commit::Together), Place::Asking, deadline.into()).await
    };
    let mut answer = asked.map(|answer| answer.unwrap().unwrap()).boxed();
    assert!((&mut answer).now_or_never().is_none());
    queue.next_frame(1, &mut taken);
    (taken, answer)
}

#[test]
fn reply_of_another_length_ends_the_connection() {
    let script = Script::with_server_time();
    let amend = Script::amend_with_server_time();
    let due = Instant::now() + Duration::from_secs(1);
    let replies: [(&[i64], bool); 4] =
        [(&[0, 5, 1, 7], true), (&[0, 5, 1], false), (&[0, 5, 1, 7, 8], false), (&[], false)];
    for (integers, fits) in replies {
        let mut pipeline = Pipeline::new(&script, &amend, 1, None);
        let (mut out, (taken, answer)) = (Vec::new(), call());
        pipeline.send(taken, &mut out, due.into(), due);
        pipeline.complete(Message::Text("OK".to_owned()), &mut out).unwrap();
        let completed = pipeline.complete(Message::Integers(integers.to_vec()), &mut out);
        assert_eq!(completed.is_ok(), fits, "{integers:?}: {completed:?}");
        let answer = answer.now_or_never().unwrap();
        assert_eq!(answer.is_ok(), fits, "{integers:?}: {answer:?}");
    }
}

/// The flag that ASKING sets is for one command.
#[test]
fn asking_is_said_again_when_the_script_is_unknown() {
    let script = Script::with_server_time();
    let amend = Script::amend_with_server_time();
    let due = Instant::now() + Duration::from_secs(1);
    let node = Address::Tcp("h".to_owned(), 1);
    let mut pipeline = Pipeline::new(&script, &amend, 1, Some(&node));
    let (mut out, (taken, answer)) = (Vec::new(), call());
    pipeline.send(taken, &mut out, due.into(), due);
    let asking = b"*1\r\n$6\r\nASKING\r\n";
    assert!(out.starts_with(asking));
    out.clear();
    for reply in [Message::Text("OK".to_owned()), Message::Error("NOSCRIPT".to_owned())] {
        pipeline.complete(reply, &mut out).unwrap();
    }
    assert!(out.starts_with(asking) && out.len() > 1_000, "{}", out.escape_ascii());
    let moved = "MOVED 7 other:6379".to_owned();
    for reply in [Message::Text("OK".to_owned()), Message::Error(moved)] {
        pipeline.complete(reply, &mut out).unwrap();
    }
    let undecided = answer.now_or_never().unwrap().unwrap_err();
    let to = Some(Address::Tcp("other".to_owned(), 6_379));
    assert_eq!(undecided.redirect, Some(Redirect::Moved { slot: 7, to }));
    assert_eq!((pipeline.frames(), pipeline.claims(), pipeline.commands()), (0, 0, 0));
}
