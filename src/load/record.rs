//! The record of a run: every call that was answered, as a file and in memory.
//!
//! Each thread gathers calls and hands them over in blocks, so that a call costs a push. Times are
//! those of the wall clock at start plus the monotonic time since then.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use parking_lot::Mutex;
use prost::Message as _;
use prost_types::Struct;
use prost_types::value::Kind;
use tollgate::domain::{Clock as _, SystemClock, Timestamp};
use tollgate::edge::pb::RateLimitResponse;
use tollgate::edge::pb::rate_limit_response::{Code, DescriptorStatus};
use tollgate::verify::{Answer, Call, HEADER, Line, Traces};

/// Calls of a thread that are handed over together.
const BLOCK: usize = 4_096;

/// One key of an answered call.
#[derive(Clone, Copy, Debug)]
struct Recorded {
    /// The position of the key's value in the plan.
    value: usize,
    call: Call,
    answer: Answer,
    degraded: bool,
}

/// The record of all threads.
#[derive(Debug)]
pub(super) struct Record {
    clock: SystemClock,
    /// The key of a line, by position of the value.
    keys: Vec<String>,
    writes_file: bool,
    sink: Mutex<Sink>,
}

#[derive(Debug)]
struct Sink {
    file: Option<File>,
    traces: Option<Traces>,
    /// The first fault of the file.
    fault: Option<io::Error>,
}

impl Record {
    /// A record in `path`, in `traces`, or in both. A call of value i has the i-th of `keys`.
    pub(super) fn create(
        keys: Vec<String>,
        path: Option<&Path>,
        traces: Option<Traces>,
    ) -> io::Result<Self> {
        let mut file = path.map(File::create).transpose()?;
        if let Some(file) = &mut file {
            writeln!(file, "{HEADER}")?;
        }
        let writes_file = file.is_some();
        let sink = Mutex::new(Sink { file, traces, fault: None });
        Ok(Self { clock: SystemClock::start(), keys, writes_file, sink })
    }

    /// The part of one thread.
    pub(super) const fn recorder(&self) -> Recorder<'_> {
        Recorder { record: self, calls: RefCell::new(Vec::new()) }
    }

    /// Ends the record: all recorders are gone.
    pub(super) fn finish(self) -> io::Result<Option<Traces>> {
        let Sink { fault, traces, .. } = self.sink.into_inner();
        fault.map_or(Ok(traces), Err)
    }

    fn take(&self, calls: &[Recorded]) {
        let lines = calls.iter().filter_map(|recorded| {
            let Recorded { value, call, answer, degraded } = *recorded;
            Some(Line { key: self.keys.get(value)?, call, answer, degraded, settled: None })
        });
        let mut text = String::new();
        if self.writes_file {
            for line in lines.clone() {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "{line}");
            }
        }
        let mut sink = self.sink.lock();
        let Sink { file, traces, fault } = &mut *sink;
        if let Some(Err(error)) = file.as_mut().map(|file| file.write_all(text.as_bytes())) {
            fault.get_or_insert(error);
            *file = None;
        }
        if let Some(traces) = traces {
            lines.for_each(|line| _ = traces.push(&line));
        }
    }
}

/// The calls of one thread that are not handed over yet.
#[derive(Debug)]
pub(super) struct Recorder<'a> {
    record: &'a Record,
    calls: RefCell<Vec<Recorded>>,
}

impl Recorder<'_> {
    /// The time.
    pub(super) fn now(&self) -> Timestamp {
        self.record.clock.now()
    }

    /// Records an answer to a call that was sent at `sent` for these values, one per descriptor.
    ///
    /// Recorded is what can be judged: of an admitted call the descriptors that passed, of a denied
    /// one those that were over their limit. The others were neither admitted nor refused. Equal
    /// descriptors of a call are one with the sum of their hits.
    pub(super) fn add(&self, values: &[usize], sent: Timestamp, response: &RateLimitResponse) {
        let received = self.now();
        let answer = match response.overall_code() {
            Code::OverLimit => Answer::Refused,
            _ => Answer::Admitted,
        };
        let degraded = Degraded::of(response);
        let mut calls = self.calls.borrow_mut();
        for (i, &value) in values.iter().enumerate() {
            let equal =
                || (i..).zip(values.get(i..).unwrap_or_default()).filter(|(_, v)| **v == value);
            let first = !values.iter().take(i).any(|earlier| *earlier == value);
            let over = |at: usize| response.statuses.get(at).is_some_and(is_over);
            let counts = match answer {
                Answer::Refused => equal().any(|(at, _)| over(at)),
                _ => equal().all(|(at, _)| !over(at)),
            };
            if first && counts {
                let hits = equal().count() as u64;
                let call = Call::new(sent, received, hits);
                let degraded = equal().any(|(at, _)| degraded.at(at));
                calls.push(Recorded { value, call, answer, degraded });
            }
        }
        if calls.len() >= BLOCK {
            self.record.take(&calls);
            calls.clear();
        }
    }
}

impl Drop for Recorder<'_> {
    fn drop(&mut self) {
        self.record.take(&self.calls.borrow());
    }
}

fn is_over(status: &DescriptorStatus) -> bool {
    status.code() == Code::OverLimit
}

/// The descriptors that dynamic metadata marks as degraded; empty if it marks none.
#[derive(Debug, Default)]
struct Degraded(Vec<bool>);

impl Degraded {
    fn of(response: &RateLimitResponse) -> Self {
        const NAME: &[u8] = b"degraded";
        let bytes = &response.dynamic_metadata;
        // Decoding costs more than a search, and hardly any answer is degraded.
        if !bytes.windows(NAME.len()).any(|part| part == NAME) {
            return Self::default();
        }
        let descriptors = Struct::decode(bytes.clone())
            .ok()
            .and_then(|mut metadata| metadata.fields.remove("descriptors")?.kind);
        let Some(Kind::ListValue(list)) = descriptors else { return Self::default() };
        let is_marked = |value: prost_types::Value| match value.kind {
            Some(Kind::StructValue(fields)) => fields
                .fields
                .get("degraded")
                .is_some_and(|value| value.kind == Some(Kind::BoolValue(true))),
            _ => false,
        };
        Self(list.values.into_iter().map(is_marked).collect())
    }

    fn at(&self, descriptor: usize) -> bool {
        self.0.get(descriptor) == Some(&true)
    }
}
