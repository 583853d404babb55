//! What was asked of the registry and what it acknowledged, and whether what it holds in the end agrees.
//!
//! Every write has a stamp, which its clients carry as their limit. A revision tells which of two writes came later, so
//! the check needs no order of calls: a write that nobody acknowledged may have happened at any revision, or not
//! at all, but never in part.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use tollgate::edge::admin::pb::Client;

/// A write that was begun.
#[derive(Debug)]
pub struct Write {
    /// Of the clients; none: they are deleted.
    pub stamp: Option<u32>,
    pub clients: Vec<String>,
    pub outcome: Outcome,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// Acknowledged, with its revision.
    Done(u64),
    /// It was told that nothing changed.
    Refused,
    /// Not heard of.
    Unknown,
}

/// Every write.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<Vec<Write>>);

impl Ledger {
    pub fn note(&self, write: Write) {
        self.0.lock().push(write);
    }

    pub fn acknowledged(&self) -> usize {
        let done = |write: &&Write| matches!(write.outcome, Outcome::Done(_));
        self.0.lock().iter().filter(done).count()
    }

    pub fn unknown(&self) -> usize {
        self.0.lock().iter().filter(|write| write.outcome == Outcome::Unknown).count()
    }

    /// Panics when `found`, everything there is, is not what the writes leave.
    pub fn check(&self, found: &[Client], context: &str) {
        let writes = self.0.lock();
        let found: BTreeMap<&str, (u32, u64)> = found.iter().map(state).collect();
        assert_revisions_are_distinct(&writes, context);
        for write in writes.iter() {
            match write.outcome {
                Outcome::Refused => {}
                Outcome::Done(revision) => {
                    for client in &write.clients {
                        assert_stands(&writes, write, revision, client, &found, context);
                    }
                }
                Outcome::Unknown => {
                    let met = |client: &&String| {
                        let (stamp, revision) = found.get(client.as_str())?;
                        (Some(*stamp) == write.stamp).then_some(*revision)
                    };
                    // One client of the batch proves that it happened: then all of it did, as one.
                    let Some(revision) = write.clients.iter().find_map(|c| met(&c)) else {
                        continue;
                    };
                    for client in &write.clients {
                        assert_stands(&writes, write, revision, client, &found, context);
                    }
                }
            }
        }
        for (client, (stamp, _)) in &found {
            let written = |write: &Write| {
                write.stamp == Some(*stamp) && write.clients.iter().any(|name| name == client)
            };
            assert!(writes.iter().any(written), "{context}: nobody wrote {client} as {stamp}");
        }
    }
}

/// The name, stamp and revision of a client.
fn state(client: &Client) -> (&str, (u32, u64)) {
    let stamp = client.limits[0].requests_per_unit();
    (client.entries[0].value.as_str(), (stamp, client.etag.parse().unwrap()))
}

/// A revision that was told twice would be a write that was lost and its number given to another.
fn assert_revisions_are_distinct(writes: &[Write], context: &str) {
    let mut revisions = BTreeMap::new();
    for write in writes {
        if let Outcome::Done(revision) = write.outcome {
            let other = revisions.insert(revision, write);
            assert!(other.is_none(), "{context}: {write:?} and {other:?} have one revision");
        }
    }
}

/// `client` is as `write` left it at `revision`, or as a later one did.
fn assert_stands(
    writes: &[Write],
    write: &Write,
    revision: u64,
    client: &str,
    found: &BTreeMap<&str, (u32, u64)>,
    context: &str,
) {
    let stands = match found.get(client) {
        Some((stamp, at)) if *at == revision => Some(*stamp) == write.stamp,
        Some((_, at)) => *at > revision,
        None => write.stamp.is_none() || may_have_been_deleted(writes, revision, client),
    };
    let there = found.get(client);
    assert!(stands, "{context}: {client} is {there:?} after {write:?} at {revision}");
}

fn may_have_been_deleted(writes: &[Write], after: u64, client: &str) -> bool {
    writes.iter().any(|write| {
        let later = match write.outcome {
            Outcome::Done(revision) => revision > after,
            Outcome::Refused => false,
            Outcome::Unknown => true,
        };
        later && write.stamp.is_none() && write.clients.iter().any(|name| name == client)
    })
}
