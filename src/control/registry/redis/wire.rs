//! Arguments and replies of the registry in Redis, as typed values. Nothing here talks to Redis.
//!
//! `write.lua` has the tables of arguments, reply, records and log; the two files change together.

use std::ops::ControlFlow;

use bytes::Bytes;
use redis::{Cmd, Script, ScriptInvocation, Value, from_redis_value};

use crate::control::registry::{Change, Expect, Mark, Record, RegistryError, Update, Written};
use crate::domain::{Key, Timestamp};

const SCRIPT: &str = include_str!("write.lua");
const BEAT: &str = include_str!("beat.lua");
/// The stay of a process among the replicas without another beat, in microseconds.
const STAY_US: u64 = 3_000_000;
/// Writes, and leaves nothing behind.
const PROBE: &str = "redis.call('HSET', KEYS[1], 'probe', 1) \
                     return redis.call('HDEL', KEYS[1], 'probe')";
/// Keeps a post with those of other processes, for ten seconds.
const POST: &str = "redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) \
                    return redis.call('PEXPIRE', KEYS[1], 10000)";
/// The first byte of a record.
const VERSION: u8 = 1;
/// The bytes of a record before its value.
const HEADER: usize = 9;
/// The sequence number of a write's last change.
const LAST: u64 = u64::MAX;

/// The names of everything in Redis; one slot of a Cluster.
#[derive(Debug)]
pub(super) struct Names {
    records: String,
    log: String,
    /// The channel of notices.
    pub(super) news: String,
    probe: String,
    replicas: String,
    /// The beginning of the keys of posts.
    posts: String,
}

impl Names {
    pub(super) fn new(prefix: &str) -> Self {
        let name = |part| format!("{prefix}{{registry}}:{part}");
        Self {
            records: name("records"),
            log: name("log"),
            news: name("news"),
            probe: name("probe"),
            replicas: name("replicas"),
            posts: name("posts"),
        }
    }

    /// The slot of all keys in a Redis Cluster.
    pub(super) fn slot(&self) -> u16 {
        Key::new(self.records.as_bytes()).slot()
    }

    /// The key of the log.
    pub(super) fn log(&self) -> &str {
        &self.log
    }

    /// The posts of a second.
    pub(super) fn posts(&self, second: u64) -> Cmd {
        let mut command = redis::cmd("HGETALL");
        command.arg(self.posts_of(second));
        command
    }

    fn posts_of(&self, second: u64) -> String {
        format!("{}:{second}", self.posts)
    }

    /// Takes a process from the replicas.
    pub(super) fn leave(&self, id: u128) -> Cmd {
        let mut command = redis::cmd("ZREM");
        command.arg(&self.replicas).arg(format!("{id:032x}"));
        command
    }

    pub(super) fn read(&self, key: &[u8]) -> Cmd {
        let mut command = redis::cmd("HGET");
        command.arg(&self.records).arg(key);
        command
    }

    pub(super) fn scan(&self, cursor: u64, count: usize) -> Cmd {
        let mut command = redis::cmd("HSCAN");
        command.arg(&self.records).arg(cursor).arg("COUNT").arg(count);
        command
    }

    /// The newest change of the log.
    pub(super) fn newest(&self) -> Cmd {
        let mut command = redis::cmd("XREVRANGE");
        command.arg(&self.log).arg("+").arg("-").arg("COUNT").arg(1);
        command
    }

    /// The log from the last change of `revision` on; of 0: from its start.
    pub(super) fn since(&self, revision: u64, count: usize) -> Cmd {
        let mut command = redis::cmd("XRANGE");
        let from = if revision == 0 { "-".to_owned() } else { format!("{revision}-{LAST}") };
        command.arg(&self.log).arg(from).arg("+").arg("COUNT").arg(count);
        command
    }
}

/// The processes in the reply to a beat.
pub(super) fn replicas(reply: Value) -> Result<Vec<u128>, RegistryError> {
    let names: Vec<String> =
        from_redis_value(reply).map_err(|error| RegistryError::Corrupt(error.to_string()))?;
    // Other members are no processes.
    Ok(names.iter().filter_map(|name| u128::from_str_radix(name, 16).ok()).collect())
}

/// The processes and their posts.
pub(super) fn posts(reply: Value) -> Result<Vec<(u128, Bytes)>, RegistryError> {
    let fields: Vec<(String, Bytes)> = parse(reply)?;
    let post = |(id, post): (String, Bytes)| Some((u128::from_str_radix(&id, 16).ok()?, post));
    // Other fields are no posts.
    Ok(fields.into_iter().filter_map(post).collect())
}

/// The scripts and their arguments.
#[derive(Debug)]
pub(super) struct Writer {
    write: Script,
    probe: Script,
    beat: Script,
    post: Script,
}

impl Writer {
    pub(super) fn new() -> Self {
        Self {
            write: Script::new(SCRIPT),
            probe: Script::new(PROBE),
            beat: Script::new(BEAT),
            post: Script::new(POST),
        }
    }

    /// Notes the process `id` among the replicas.
    pub(super) fn beat(&self, names: &Names, id: u128) -> ScriptInvocation<'_> {
        let mut call = self.beat.prepare_invoke();
        call.key(&names.replicas).arg(format!("{id:032x}")).arg(STAY_US);
        call
    }

    /// Keeps what the process `id` saw in a second.
    pub(super) fn post(
        &self,
        names: &Names,
        second: u64,
        id: u128,
        seen: &[u8],
    ) -> ScriptInvocation<'_> {
        let mut call = self.post.prepare_invoke();
        call.key(names.posts_of(second)).arg(format!("{id:032x}")).arg(seen);
        call
    }

    pub(super) fn probe(&self, names: &Names) -> ScriptInvocation<'_> {
        let mut call = self.probe.prepare_invoke();
        call.key(&names.probe);
        call
    }

    pub(super) fn call(
        &self,
        names: &Names,
        log_changes: usize,
        tag: u64,
        changes: &[Change],
    ) -> ScriptInvocation<'_> {
        let mut call = self.write.prepare_invoke();
        call.key(&names.records).key(&names.log);
        // One more than readers get: they find their place by the change that they know.
        call.arg(log_changes.saturating_add(1)).arg(tag.to_le_bytes().as_slice()).arg(&names.news);
        for change in changes {
            call.arg(change.key.as_ref());
            match change.expect {
                Expect::Anything => call.arg(""),
                Expect::Absent => call.arg("-"),
                Expect::Present => call.arg("+"),
                Expect::Revision(revision) => call.arg(revision),
                Expect::Expired => call.arg("!"),
            };
            match &change.value {
                Some(value) => call.arg([b"=", value.as_ref()].concat()),
                None => call.arg("-"),
            };
        }
        call
    }
}

/// The answer of the script to `changes`, which it wrote with `tag`.
pub(super) fn written(
    reply: Value,
    tag: u64,
    changes: &[Change],
) -> Result<Written, RegistryError> {
    let mut reply = array(reply)?.into_iter();
    let mut integer =
        || -> Result<i64, RegistryError> { parse(reply.next().unwrap_or(Value::Nil)) };
    let (done, second) = (integer()? == 1, integer()?);
    if !done {
        let index = second as usize;
        let found = u64::try_from(integer()?).ok();
        let expected = changes.get(index).map_or(Expect::Anything, |change| change.expect);
        return Err(RegistryError::Conflict { index, expected, found });
    }
    let mark = Mark { revision: second as u64, tag };
    let previous = parse::<Option<Bytes>>(reply.next().unwrap_or(Value::Nil))?;
    let previous = Mark {
        revision: mark.revision.saturating_sub(1),
        tag: previous.as_deref().and_then(read_tag).unwrap_or_default(),
    };
    let before = reply.map(|record| Ok(parse::<Option<Bytes>>(record)?.and_then(unpack)));
    let before = before.collect::<Result<Vec<_>, RegistryError>>()?;
    if before.len() != changes.len() {
        return Err(RegistryError::Corrupt("the reply to a write is too short".into()));
    }
    Ok(Written { mark, previous, before })
}

/// A record as it is stored; none: this is not one.
pub(super) fn unpack(mut stored: Bytes) -> Option<Record> {
    let (version, rest) = stored.split_first()?;
    let revision = u64::from_le_bytes(*rest.first_chunk()?);
    if *version != VERSION {
        return None;
    }
    Some(Record { value: stored.split_off(HEADER), revision })
}

/// The clock of Redis.
pub(super) fn time(reply: Value) -> Result<Timestamp, RegistryError> {
    let (seconds, micros): (u64, u64) = parse(reply)?;
    Ok(Timestamp::from_micros(seconds.saturating_mul(1_000_000).saturating_add(micros)))
}

/// The cursor that goes on, the records, and how many fields of the batch are no record.
pub(super) fn scanned(reply: Value) -> Result<(u64, Vec<Update>, usize), RegistryError> {
    let (cursor, fields): (u64, Vec<Bytes>) = parse(reply)?;
    let mut entries = Vec::with_capacity(fields.len() / 2);
    let mut unreadable = 0;
    let mut fields = fields.into_iter();
    while let (Some(key), Some(stored)) = (fields.next(), fields.next()) {
        match unpack(stored) {
            Some(record) => entries.push((key, Some(record))),
            None => unreadable += 1,
        }
    }
    Ok((cursor, entries, unreadable))
}

/// A change as the log has it.
#[derive(Debug)]
pub(super) struct Logged {
    revision: u64,
    entry: Update,
    /// On the last change of a write.
    end: Option<End>,
}

#[derive(Clone, Copy, Debug)]
struct End {
    tag: u64,
    changes: usize,
}

impl Logged {
    /// Its write, if it is the last change of it.
    pub(super) fn mark(&self) -> Option<Mark> {
        self.end.map(|end| Mark { revision: self.revision, tag: end.tag })
    }

    fn read(entry: Value) -> Option<Self> {
        let mut parts = array(entry).ok()?.into_iter();
        let id: String = from_redis_value(parts.next()?).ok()?;
        let (revision, sequence) = id.split_once('-')?;
        let revision = revision.parse().ok()?;
        let (mut key, mut value, mut tag, mut changes) = (None, None, None, None);
        let mut fields = from_redis_value::<Vec<Bytes>>(parts.next()?).ok()?.into_iter();
        while let (Some(name), Some(field)) = (fields.next(), fields.next()) {
            match name.as_ref() {
                b"k" => key = Some(field),
                b"v" => value = Some(field),
                b"t" => tag = Some(read_tag(&field)?),
                b"n" => changes = Some(std::str::from_utf8(&field).ok()?.parse().ok()?),
                _ => return None,
            }
        }
        let end = match sequence.parse::<u64>().ok()? {
            LAST => Some(End { tag: tag?, changes: changes? }),
            _ => None,
        };
        let entry = (key?, value.map(|value| Record { value, revision }));
        Some(Self { revision, entry, end })
    }
}

/// The changes of the log in `reply`; none: it has other contents.
pub(super) fn logged(reply: Value) -> Option<Vec<Logged>> {
    array(reply).ok()?.into_iter().map(Logged::read).collect()
}

/// Whole writes that follow each other in the log.
#[derive(Debug, Default)]
pub(super) struct Run {
    /// The last of them.
    pub(super) newest: Option<Mark>,
    /// Their changes.
    pub(super) entries: Vec<Update>,
}

impl Run {
    /// The writes of `log` that follow `revision`, up to the last that is there in full. None: they
    /// do not follow it without a gap.
    pub(super) fn after(revision: u64, log: impl IntoIterator<Item = Logged>) -> Option<Self> {
        let mut run = Self::default();
        let mut next = revision + 1;
        let mut whole = 0;
        let ended = log.into_iter().try_for_each(|change| {
            if change.revision != next {
                return ControlFlow::Break(());
            }
            run.entries.push(change.entry);
            if let Some(end) = change.end {
                if run.entries.len() - whole != end.changes {
                    return ControlFlow::Break(());
                }
                whole = run.entries.len();
                run.newest = Some(Mark { revision: next, tag: end.tag });
                next += 1;
            }
            ControlFlow::Continue(())
        });
        run.entries.truncate(whole);
        ended.is_continue().then_some(run)
    }
}

fn read_tag(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

fn array(value: Value) -> Result<Vec<Value>, RegistryError> {
    match value {
        Value::Array(values) => Ok(values),
        other => Err(RegistryError::Corrupt(format!("not a list: {other:?}"))),
    }
}

pub(super) fn parse<T: redis::FromRedisValue>(value: Value) -> Result<T, RegistryError> {
    from_redis_value(value).map_err(|error| RegistryError::Corrupt(error.to_string()))
}
