//! A call as a line of text: `key,sent_us,received_us,hits,admitted[,degraded[,settled..]]`.
//!
//! Times are whole microseconds since 1970 on the caller's clock. `admitted` and `degraded` are 1
//! or 0. Negative hits are hits that the call gave back. The last three fields are the settlement
//! of an estimate: what the request has cost, and the times before and after the call that said so.

use std::fmt;

use super::trace::{Call, MAX_TIME_US};
use crate::domain::Timestamp;

/// The first line of a file of calls; it may be absent.
pub const HEADER: &str = "key,sent_us,received_us,hits,admitted,degraded,settled_hits,\
                          settled_sent_us,settled_received_us";

/// The answer to a call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Answer {
    /// The hits were admitted.
    Admitted,
    /// The hits were over the limit.
    Refused,
    /// The hits were given back.
    Refunded,
}

/// One call of a key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Line<'a> {
    /// The counter: calls of one key share a limit.
    pub key: &'a str,
    /// The times and the hits.
    pub call: Call,
    /// The answer.
    pub answer: Answer,
    /// Decided without the store.
    pub degraded: bool,
    /// The settlement of the hits, which were an estimate: the cost, and its call.
    pub settled: Option<Call>,
}

impl<'a> Line<'a> {
    /// Reads a line.
    ///
    /// # Errors
    /// Says which field is wrong and what it should be.
    pub fn parse(text: &'a str) -> Result<Self, String> {
        let mut fields = text.split(',');
        let mut next =
            |name: &str| fields.next().ok_or_else(|| format!("has no {name}: a line is {HEADER}"));
        let key = next("key")?;
        let (sent, received) = (next("sent_us")?, next("received_us")?);
        let (hits, admitted) = (next("hits")?, next("admitted")?);
        let degraded = fields.next();
        let settled: Vec<&str> = fields.by_ref().take(SETTLED).collect();
        if key.is_empty() {
            return Err(format!("has an empty key: a line is {HEADER}"));
        }
        if fields.next().is_some() {
            return Err(format!("has more than 9 fields, and keys have no comma: {HEADER}"));
        }
        let sent = time("sent_us", sent)?;
        let received = time("received_us", received)?;
        if received < sent {
            return Err("received_us is before sent_us".to_owned());
        }
        let settled = settlement(&settled)?;
        let hits: i64 = hits.parse().map_err(|_| format!("hits {hits:?} is no whole number"))?;
        let answer = match (flag("admitted", admitted)?, hits < 0) {
            (_, true) => Answer::Refunded,
            (true, false) => Answer::Admitted,
            (false, false) => Answer::Refused,
        };
        let degraded = degraded.map(|text| flag("degraded", text)).transpose()? == Some(true);
        if settled.is_some() && answer != Answer::Admitted {
            return Err("settled_hits of a call that was not admitted".to_owned());
        }
        let call = Call::new(sent, received, hits.unsigned_abs());
        Ok(Self { key, call, answer, degraded, settled })
    }
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Call { sent, received, hits } = self.call;
        let sign = if self.answer == Answer::Refunded { "-" } else { "" };
        let admitted = u8::from(self.answer != Answer::Refused);
        let degraded = u8::from(self.degraded);
        write!(f, "{},{sent},{received},{sign}{hits},{admitted},{degraded}", self.key)?;
        match self.settled {
            Some(Call { sent, received, hits }) => write!(f, ",{hits},{sent},{received}"),
            None => Ok(()),
        }
    }
}

/// The fields of a settlement.
const SETTLED: usize = 3;

fn settlement(fields: &[&str]) -> Result<Option<Call>, String> {
    let [hits, sent, received] = fields else {
        let lacks =
            format!("has a part of settled_hits, settled_sent_us, settled_received_us: {HEADER}");
        return if fields.is_empty() { Ok(None) } else { Err(lacks) };
    };
    let cost = hits.parse().map_err(|_| format!("settled_hits {hits:?} is no whole number"))?;
    let (sent, received) = (time("settled_sent_us", sent)?, time("settled_received_us", received)?);
    if received < sent {
        return Err("settled_received_us is before settled_sent_us".to_owned());
    }
    Ok(Some(Call::new(sent, received, cost)))
}

fn time(name: &str, text: &str) -> Result<Timestamp, String> {
    let micros = text.parse().ok().filter(|micros| *micros <= MAX_TIME_US);
    let micros = micros.ok_or_else(|| {
        format!("{name} {text:?} is no time: write whole microseconds since 1970")
    })?;
    Ok(Timestamp::from_micros(micros))
}

fn flag(name: &str, text: &str) -> Result<bool, String> {
    match text {
        "1" => Ok(true),
        "0" => Ok(false),
        _ => Err(format!("{name} {text:?} is neither 1 nor 0")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_they_are_written() {
        let held = "k,5,7,9,1,0,4,8,9";
        for text in ["d|k=v,5,7,1,1,0", "a,0,0,3,0,1", "a b,5,7,-2,1,0", held] {
            assert_eq!(Line::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Line::parse("a,1,2,3,1").unwrap(), Line::parse("a,1,2,3,1,0").unwrap());
    }

    #[test]
    fn wrong_lines_are_refused_with_the_field() {
        for (text, part) in [
            ("", "no sent_us"),
            ("a,1,2,1", "no admitted"),
            (",1,2,1,1", "empty key"),
            ("a,1,2,1,1,0,0", "has a part of settled_hits"),
            ("a,1,2,1,1,0,0,3,4,5", "more than 9"),
            ("a,1,2,1,0,0,0,3,4", "was not admitted"),
            ("a,1,2,1,1,0,x,3,4", "settled_hits \"x\""),
            ("a,1,2,1,1,0,1,4,3", "settled_received_us is before"),
            ("a,x,2,1,1", "sent_us \"x\""),
            ("a,1,1.5,1,1", "received_us \"1.5\""),
            ("a,1,1152921504606846977,1,1", "microseconds"),
            ("a,2,1,1,1", "before sent_us"),
            ("a,1,2,many,1", "hits \"many\""),
            ("a,1,2,1,yes", "admitted \"yes\""),
            ("a,1,2,1,1,2", "degraded \"2\""),
        ] {
            let error = Line::parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
