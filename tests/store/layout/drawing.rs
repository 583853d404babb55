//! A frame, its reply and the states it leaves, in hexadecimal, as Redis has them.

use std::fmt::Write as _;
use std::time::Duration;

use redis::Connection;
use tollgate::domain::{Algorithm, Charge, Claim, Commit, Group, Hits, Key, Limit, Part};
use tollgate::store::redis::script::layout::{
    Bucket, BucketLimit, ClaimHead, Cost, Field, Fixed, FixedLimit, GroupHead, Kind, LimitHead,
    OldBucket, PartHead, Record, StateHead, WindowHits,
};
use tollgate::store::redis::script::{Encoded, Frame, Script};

use super::super::compare::{command, load};

/// 2024-01-01 in microseconds since 1970.
const NOW: u64 = 1_704_067_200_000_000;

/// One request that takes 2 hits of 7 an hour from a bucket, and 2 of 100 a minute from a fixed window.
fn group() -> Group {
    let claim = |key: &str, requests, period, algorithm| Claim {
        key: Key::new(key.as_bytes()),
        limit: Limit::new(requests, period, algorithm, Charge::Admitted).unwrap(),
        hits: Hits::Take(2),
        lease: None,
    };
    let bucket = Algorithm::TokenBucket { burst: 7 };
    Group {
        parts: vec![Part { quota: false, shadow: false, claims: 0..2 }],
        claims: vec![
            claim("bucket", 7, Duration::from_hours(1), bucket),
            claim("window", 100, Duration::from_mins(1), Algorithm::FixedWindow),
        ],
    }
}

pub fn render(connection: &mut Connection) -> String {
    let script = Script::with_manual_time(Script::DECIDE.text);
    load(connection, &script);
    let mut frame = Frame::default();
    frame.push(&Encoded::new(&group(), Commit::Together).unwrap()).unwrap();
    let reply: Vec<i64> =
        command(&script, &frame).arg(NOW).arg(3_600_000).query(connection).unwrap();
    let mut text = "```text\n".to_owned();
    for (slot, key) in frame.keys().enumerate() {
        writeln!(text, "KEYS[{}] {}", slot + 1, key.escape_ascii()).unwrap();
    }
    let [groups, limits] = frame.args();
    text.push_str("\nARGV[1]\n");
    let mut bytes = Bytes { left: groups, text };
    bytes.draw::<GroupHead>("group").draw::<PartHead>("part");
    bytes.draw::<ClaimHead>("claim").draw::<Cost>("claim");
    bytes.draw::<ClaimHead>("claim").draw::<WindowHits>("claim");
    let mut bytes = bytes.next("ARGV[2]", limits);
    bytes.draw::<LimitHead>("limit 1").draw::<BucketLimit>("limit 1");
    bytes.draw::<LimitHead>("limit 2").draw::<FixedLimit>("limit 2");
    let states: Vec<Vec<u8>> =
        redis::cmd("MGET").arg("bucket").arg("window").query(connection).unwrap();
    let mut bytes = bytes.next("State of bucket, format 2", &states[0]);
    bytes.draw::<StateHead>("state").draw::<Bucket>("state");
    let old = [&[1], &states[0][1..18]].concat();
    let mut bytes = bytes.next("The same in format 1", &old);
    bytes.draw::<StateHead>("state").draw::<OldBucket>("state");
    let mut bytes = bytes.next("State of window", &states[1]);
    bytes.draw::<StateHead>("state").draw::<Fixed>("state");
    let text = bytes.next("Reply", &[]).text;
    format!("{text}{reply:?}\n```\n")
}

/// Bytes that are not drawn yet, and the drawing.
struct Bytes<'a> {
    left: &'a [u8],
    text: String,
}

impl Bytes<'_> {
    /// Draws the fields of a record.
    fn draw<R: Record>(&mut self, owner: &str) -> &mut Self {
        for field in R::FIELDS {
            let (bytes, left) = self.left.split_at(field.kind.size());
            self.left = left;
            let hex: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            let (hex, name, value) = (hex.join(" "), field.name, value(field, bytes));
            writeln!(self.text, "{hex:<37}{owner:<9}{name:<12}{value}").unwrap();
        }
        self
    }

    /// Begins to draw `bytes`.
    fn next<'b>(self, title: &str, bytes: &'b [u8]) -> Bytes<'b> {
        assert!(self.left.is_empty(), "bytes of no record: {:02x?}", self.left);
        Bytes { left: bytes, text: format!("{}\n{title}\n", self.text) }
    }
}

fn value(field: &Field, bytes: &[u8]) -> String {
    let double = |bytes: &[u8]| f64::from_le_bytes(bytes.try_into().unwrap()).to_string();
    let integer = |bytes: &[u8]| {
        let number = bytes.iter().rev().fold(0, |number, byte| number << 8 | u32::from(*byte));
        number.to_string()
    };
    match field.kind {
        Kind::U8 | Kind::U16 | Kind::U32 => integer(bytes),
        Kind::F64 => double(bytes),
        Kind::Span => format!("{} and {} rate-ths", double(&bytes[..8]), integer(&bytes[8..])),
    }
}
