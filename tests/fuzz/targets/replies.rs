//! Replies of Redis, in chunks of any length.
//!
//! Input: a byte that chooses the cuts, and the stream.

use std::time::Duration;

use tollgate::domain::{Algorithm, Charge, Claim, Commit, Group, Hits, Key, LeaseAsk, Limit, Part};
use tollgate::redis::resp::{Decoder, Malformed, Message};
use tollgate::store::redis::script::{Encoded, Reply, readings};

use super::chunks;

/// Byte by byte, the time grows with the square of a line.
const MAX_BYTES: usize = 1_024;

/// The same replies, and the same end, however the stream is cut.
pub fn run(data: &[u8]) {
    let [seed, stream @ ..] = data else { return };
    let stream = stream.get(..MAX_BYTES).unwrap_or(stream);
    let [whole, bytes, cut] = chunks::ways(stream, *seed).map(decode);
    assert_eq!(whole, bytes, "byte by byte: {}", stream.escape_ascii());
    assert_eq!(whole, cut, "in chunks: {}", stream.escape_ascii());
    for message in whole.0 {
        if let Message::Integers(integers) = message {
            read(integers);
        }
    }
}

fn decode(chunks: Vec<bytes::Bytes>) -> (Vec<Message>, Result<(), Malformed>) {
    let (mut decoder, mut messages) = (Decoder::default(), Vec::new());
    for chunk in chunks {
        decoder.feed(&chunk);
        loop {
            match decoder.decode() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(malformed) => return (messages, Err(malformed)),
            }
        }
    }
    (messages, Ok(()))
}

/// Any list of integers is a reply to a frame, or an error.
fn read(integers: Vec<i64>) {
    let Ok(mut reply) = Reply::new(integers) else { return };
    let group = group();
    let count = Encoded::new(&group, Commit::Together).expect("a small group").integers();
    let integers = reply.next_group(count);
    let Ok(readings) = readings(&group, &integers, integers.decided_at) else { return };
    for (claim, reading) in group.claims.iter().zip(readings) {
        assert!(reading.remaining <= claim.limit.capacity(), "{claim:?}: {reading:?}");
    }
}

/// A claim of each algorithm.
fn group() -> Group {
    let lease = LeaseAsk { tokens: 2, most: 4, ttl: Duration::from_millis(1), finished: None };
    let algorithms = [
        (Algorithm::TokenBucket { burst: 3 }, None),
        (Algorithm::TokenBucket { burst: 30 }, Some(Box::new(lease))),
        (Algorithm::SlidingWindow { slots: 5 }, None),
        (Algorithm::FixedWindow, None),
    ];
    let claims = algorithms.map(|(algorithm, lease)| {
        let limit = Limit::new(7, Duration::from_secs(1), algorithm, Charge::Admitted);
        let key = Key::new(*b"key");
        Claim { key, limit: limit.expect("a limit"), hits: Hits::Take(1), lease }
    });
    let part = |i| Part { quota: false, shadow: false, claims: i..i + 1 };
    Group { parts: (0..claims.len()).map(part).collect(), claims: claims.into() }
}
