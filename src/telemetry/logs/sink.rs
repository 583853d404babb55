//! The places of log lines: a queue with a thread that writes, or a file that callers write.
//!
//! The queue is bounded and does not wait, so that a slow disk or a pipe that nobody reads delays
//! no decision: lines that find it full are dropped and counted. Audit lines wait.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::Metadata;
use tracing_subscriber::fmt::MakeWriter;

use super::file::LogFile;
use super::output::Output;
use super::targets::{AUDIT, DENIED};
use crate::telemetry::metrics::LineMetrics;

/// The most lines in a queue.
const QUEUE_LINES: usize = 8_192;

/// The time for the last lines at the end of the process.
const LAST_LINES: Duration = Duration::from_secs(2);

/// The wait for room in a full queue, at the end of the process.
const FULL_AGAIN: Duration = Duration::from_millis(2);

/// The lines that were not written, of the process. Counted here until there are metrics.
#[derive(Clone, Debug, Default)]
pub(super) struct Dropped(Arc<OnceLock<LineMetrics>>);

impl Dropped {
    /// Counts in `metrics` from now on. Lines are dropped before only while the process starts.
    pub(super) fn count_in(&self, metrics: LineMetrics) {
        // Set once: the metrics of the process.
        drop(self.0.set(metrics));
    }

    fn count(&self, line: Kind) {
        let Some(metrics) = self.0.get() else { return };
        match line {
            Kind::Main => metrics.main.inc(),
            Kind::Denied => metrics.denied.inc(),
            Kind::Audit => metrics.audit.inc(),
        }
    }
}

/// The log that a line belongs to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Main,
    Denied,
    Audit,
}

impl Kind {
    fn of(metadata: &Metadata<'_>) -> Self {
        match metadata.target() {
            AUDIT => Self::Audit,
            DENIED => Self::Denied,
            _ => Self::Main,
        }
    }
}

enum Message {
    Line(Kind, Box<[u8]>),
    Reopen,
    /// Answered once all lines before are written.
    Flush(SyncSender<()>),
}

/// A queue of lines, and the thread that writes them.
#[derive(Clone, Debug)]
pub(super) struct Sink {
    queue: SyncSender<Message>,
    dropped: Dropped,
}

impl Sink {
    /// Starts the thread `name`.
    ///
    /// # Errors
    /// Fails if the system has no thread.
    pub(super) fn start(name: &str, output: impl Output, dropped: Dropped) -> io::Result<Self> {
        let (queue, messages) = sync_channel(QUEUE_LINES);
        let counted = dropped.clone();
        let thread = std::thread::Builder::new().name(name.to_owned());
        thread.spawn(move || write(&messages, output, &counted))?;
        Ok(Self { queue, dropped })
    }

    /// Opens the file again.
    pub(super) fn reopen(&self) {
        // The thread lives as long as the queue.
        let _ = self.queue.send(Message::Reopen);
    }

    /// Waits until the lines so far are written, but not for long: a pipe may have no reader.
    pub(super) fn flush(&self) {
        let until = Instant::now() + LAST_LINES;
        let (done, written) = sync_channel(1);
        let mut message = Message::Flush(done);
        while let Err(TrySendError::Full(full)) = self.queue.try_send(message) {
            if Instant::now() >= until {
                return;
            }
            message = full;
            std::thread::sleep(FULL_AGAIN);
        }
        let _ = written.recv_timeout(until.saturating_duration_since(Instant::now()));
    }

    fn push(&self, line: &[u8], kind: Kind) {
        let message = Message::Line(kind, line.into());
        let queued = if kind == Kind::Audit {
            self.queue.send(message).is_ok()
        } else {
            self.queue.try_send(message).is_ok()
        };
        if !queued {
            self.dropped.count(kind);
        }
    }
}

fn write(messages: &Receiver<Message>, mut output: impl Output, dropped: &Dropped) {
    for message in messages {
        match message {
            Message::Line(kind, line) => {
                if !output.write(&line) {
                    dropped.count(kind);
                }
            }
            Message::Reopen => output.reopen(),
            Message::Flush(done) => _ = done.send(()),
        }
    }
}

/// The writer of one line, which comes as a whole.
#[derive(Debug)]
pub(super) struct Line<'a>(&'a Sink, Kind);

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line, self.1);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(self, Kind::Main)
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Line<'a> {
        Line(self, Kind::of(metadata))
    }
}

/// The file of audit lines, which the call that makes them writes. A line that the file does not
/// take goes to the main log.
#[derive(Clone, Debug)]
pub(super) struct AuditFile {
    file: Arc<Mutex<LogFile>>,
    main: Sink,
}

impl AuditFile {
    pub(super) fn new(file: LogFile, main: Sink) -> Self {
        Self { file: Arc::new(Mutex::new(file)), main }
    }

    /// Opens the file again.
    pub(super) fn reopen(&self) {
        self.file.lock().reopen();
    }
}

impl Write for AuditFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if !self.file.lock().write(line) {
            self.main.dropped.count(Kind::Audit);
            self.main.push(line, Kind::Audit);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for AuditFile {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    /// Takes a line for each that it is allowed.
    struct Gate(Receiver<()>, Arc<Mutex<Vec<u8>>>);

    impl Output for Gate {
        fn write(&mut self, line: &[u8]) -> bool {
            self.0.recv().unwrap();
            self.1.lock().extend_from_slice(line);
            true
        }
    }

    #[test]
    fn full_queue_drops_lines_but_those_of_the_audit_wait() {
        let (allow, allowed) = channel();
        let (dropped, kept) = (Dropped::default(), Arc::<Mutex<Vec<u8>>>::default());
        let metrics = LineMetrics::default();
        dropped.count_in(metrics.clone());
        let sink = Sink::start("test", Gate(allowed, Arc::clone(&kept)), dropped).unwrap();
        // One line is with the thread.
        let more = 10;
        for _ in 0..=QUEUE_LINES + more {
            sink.push(b"main\n", Kind::Main);
        }
        let lost = metrics.main.get();
        assert!(((more as u64)..=(more as u64 + 1)).contains(&lost), "{lost}");
        sink.push(b"denied\n", Kind::Denied);
        assert_eq!(metrics.denied.get(), 1);
        let waiting = sink.clone();
        let audit = std::thread::spawn(move || waiting.push(b"audit\n", Kind::Audit));
        for _ in 0..=QUEUE_LINES + 1 {
            allow.send(()).unwrap();
        }
        audit.join().unwrap();
        sink.flush();
        assert!(kept.lock().ends_with(b"audit\n"));
        assert_eq!(metrics.audit.get(), 0);
    }
}
