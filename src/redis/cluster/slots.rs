//! The reply to `CLUSTER SLOTS`, and the redirections in error replies.
//!
//! Source: <https://redis.io/docs/latest/commands/cluster-slots/>. `CLUSTER SHARDS` needs Redis 7
//! and has nothing more that is needed here.

use redis::{Value, from_redis_value};

use super::map::{Range, SLOTS};
use crate::redis::Address;

/// A host that a node does not know of itself.
const UNKNOWN: &str = "?";

/// The ranges in the reply of the node at `answered`. A host that is empty or nil is that of the
/// node that answered. Ranges whose primary is not known are left out.
///
/// # Errors
/// Fails with a reason if the reply is something else.
pub(super) fn ranges(reply: Value, answered: &Address) -> Result<Vec<Range>, String> {
    let Value::Array(entries) = reply else { return Err(unreadable(&reply)) };
    let mut ranges = Vec::with_capacity(entries.len());
    for entry in entries {
        let Value::Array(mut fields) = entry else { return Err(unreadable(&entry)) };
        // Replicas follow the primary.
        fields.truncate(3);
        let Ok([first, last, Value::Array(node)]) = <[Value; 3]>::try_from(fields) else {
            return Err("CLUSTER SLOTS has a range without a node".to_owned());
        };
        let slot = |value| from_redis_value::<u16>(value).ok().filter(|slot| *slot < SLOTS);
        let (Some(first), Some(last)) = (slot(first), slot(last)) else {
            return Err("CLUSTER SLOTS has a range that is none".to_owned());
        };
        if let Some(primary) = primary(node, answered) {
            ranges.push(Range { slots: first..=last, primary });
        }
    }
    Ok(ranges)
}

fn primary(node: Vec<Value>, answered: &Address) -> Option<Address> {
    let mut fields = node.into_iter();
    let host: Option<String> = from_redis_value(fields.next()?).ok()?;
    let port: u16 = from_redis_value(fields.next()?).ok().filter(|port| *port > 0)?;
    address(host.as_deref().unwrap_or_default(), port, answered)
}

/// The address of a node; an empty host is that of the node that `answered`.
fn address(host: &str, port: u16, answered: &Address) -> Option<Address> {
    match (host, answered) {
        (UNKNOWN, _) | ("", Address::Unix(_)) => None,
        ("", Address::Tcp(host, _)) => Some(Address::Tcp(host.clone(), port)),
        (host, _) => Some(Address::Tcp(host.to_owned(), port)),
    }
}

/// An instruction to ask another node. The command was not run.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Redirect {
    /// The slot is at another node.
    Moved {
        /// The slot.
        slot: u16,
        /// The node; `None` if its host is not known.
        to: Option<Address>,
    },
    /// The keys are at another node, which must be told that it is asked for once. The slot is not.
    Ask(Address),
    /// Some of the keys are at another node. Later all of them are at one.
    Again,
}

/// The redirection in the text of an error that the node at `answered` gave.
pub(crate) fn redirect(text: &str, answered: &Address) -> Option<Redirect> {
    let mut words = text.split(' ');
    let kind = words.next()?;
    if kind == "TRYAGAIN" {
        return Some(Redirect::Again);
    }
    let slot = words.next()?.parse().ok().filter(|slot| *slot < SLOTS)?;
    let (host, port) = words.next()?.rsplit_once(':')?;
    let to = address(host, port.parse().ok()?, answered);
    match kind {
        "MOVED" => Some(Redirect::Moved { slot, to }),
        "ASK" => to.map(Redirect::Ask),
        _ => None,
    }
}

fn unreadable(reply: &Value) -> String {
    let text = format!("{reply:?}");
    format!("CLUSTER SLOTS was answered with {}", text.get(..80).unwrap_or(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn entry(first: i64, last: i64, host: Value, port: i64) -> Value {
        let node = |host, port| Value::Array(vec![host, Value::Int(port), text("id")]);
        let replica = node(text("replica"), 9);
        Value::Array(vec![Value::Int(first), Value::Int(last), node(host, port), replica])
    }

    fn at(host: &str, port: u16) -> Address {
        Address::Tcp(host.to_owned(), port)
    }

    #[test]
    fn hosts_that_a_node_does_not_name_are_its_own_or_left_out() {
        let reply = Value::Array(vec![
            entry(0, 9, text("a"), 1),
            entry(10, 10, Value::Nil, 2),
            entry(11, 12, text(""), 3),
            entry(13, 14, text("?"), 4),
            entry(15, 16, text("a"), 0),
            entry(17, 18, text("::1"), 5),
        ]);
        let ranges = ranges(reply, &at("me", 7)).unwrap();
        let found: Vec<_> =
            ranges.into_iter().map(|range| (*range.slots.start(), range.primary)).collect();
        assert_eq!(
            found,
            [(0, at("a", 1)), (10, at("me", 2)), (11, at("me", 3)), (17, at("::1", 5))]
        );
    }

    #[test]
    fn other_replies_are_refused() {
        let broken = [
            Value::Int(3),
            Value::Array(vec![Value::Int(1)]),
            Value::Array(vec![Value::Array(vec![Value::Int(1), Value::Int(2)])]),
            Value::Array(vec![entry(0, 16_384, text("a"), 1)]),
            Value::Array(vec![entry(-1, 5, text("a"), 1)]),
        ];
        for reply in broken {
            assert!(ranges(reply.clone(), &at("me", 7)).is_err(), "{reply:?}");
        }
    }

    #[test]
    fn redirections_are_read_from_their_text() {
        let answered = at("me", 7);
        let moved = |slot, to| Some(Redirect::Moved { slot, to });
        for (text, expected) in [
            ("MOVED 3999 10.0.0.1:6381", moved(3_999, Some(at("10.0.0.1", 6_381)))),
            ("MOVED 3999 :6381", moved(3_999, Some(at("me", 6_381)))),
            ("MOVED 3999 ?:6381", moved(3_999, None)),
            ("ASK 1 ::1:6381", Some(Redirect::Ask(at("::1", 6_381)))),
            ("TRYAGAIN Multiple keys request during rehashing of slot", Some(Redirect::Again)),
            ("MOVED 16384 h:1", None),
            ("MOVED 5 h:x", None),
            ("MOVED", None),
            ("CLUSTERDOWN Hash slot not served", None),
            ("ASK 1 ?:6381", None),
        ] {
            assert_eq!(redirect(text, &answered), expected, "{text}");
        }
    }
}
