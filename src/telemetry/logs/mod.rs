//! Log lines: text or JSON, on standard error or in files, with a level that can change at run
//! time.
//!
//! ```text
//!  event -> filter -> main log    -> queue -> standard error | log.file
//!                  -> audit lines -> log.audit_file, otherwise the main log
//!                  -> denials     -> queue -> log.denied_file, otherwise the main log
//! ```
//! Callers must [escape](super::escape::escape) values from requests.
//!
//! * `level`: the filter. `sink`: queues. `file`: rotation.

mod file;
mod level;
mod output;
mod settings;
mod sink;
mod targets;
#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layered, SubscriberExt};
use tracing_subscriber::{EnvFilter, Layer, Registry, filter, reload};

use self::file::{LogFile, Rotation};
pub use self::level::{Level, LevelError};
use self::output::Stream;
pub use self::settings::{Format, LogSettings};
use self::sink::{AuditFile, Dropped, Sink};
pub use self::targets::{AUDIT, DENIED};
use super::metrics::LineMetrics;

/// The reason why logging does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A subscriber is already installed.
    #[error("logging was started before")]
    Again(#[source] tracing::subscriber::SetGlobalDefaultError),
    /// A file cannot be opened.
    #[error(
        "{setting}: {path} cannot be opened ({source}); create its directory and let tollgate \
         write there, or name another file"
    )]
    File {
        /// The setting that names it.
        setting: &'static str,
        /// The file.
        path: String,
        /// The error of the system.
        source: io::Error,
    },
    /// The system has no thread for a log.
    #[error("the system refuses a thread for the log: {0}")]
    Thread(#[source] io::Error),
}

/// Changes the log at run time.
#[derive(Clone, Debug)]
pub struct LogHandle(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    filter: reload::Handle<EnvFilter, Registry>,
    levels: Mutex<Levels>,
    places: Places,
}

/// The level by the settings, and that of an operator in its place.
#[derive(Debug)]
struct Levels {
    settings: Level,
    operator: Option<Level>,
    /// Audit lines and denials pass at every level.
    always: (bool, bool),
    /// The number of changes.
    changes: u64,
}

impl Levels {
    fn in_force(&self) -> &Level {
        self.operator.as_ref().unwrap_or(&self.settings)
    }

    fn filter(&self) -> EnvFilter {
        let (audit, denied) = self.always;
        self.in_force().filter(audit, denied)
    }
}

/// The places of lines.
#[derive(Debug)]
struct Places {
    main: Sink,
    denied: Option<Sink>,
    audit: Option<AuditFile>,
    dropped: Dropped,
}

/// A change of the level, which can be taken back while it is the last one.
#[derive(Clone, Copy, Debug)]
pub struct Change(u64);

impl LogHandle {
    /// Sets the level and the switch of denials by the settings; that of an operator ends.
    ///
    /// # Errors
    /// Fails if logging has ended.
    pub fn apply(&self, settings: &LogSettings) -> Result<(), LevelError> {
        let mut levels = self.0.levels.lock();
        levels.settings = settings.level.clone();
        levels.operator = None;
        levels.always.1 = settings.denied || self.0.places.denied.is_some();
        self.reload(&mut levels).map(drop)
    }

    /// Sets the level in the place of that of the settings; none: back to it.
    ///
    /// # Errors
    /// Fails if logging has ended.
    pub fn set_level(&self, level: Option<Level>) -> Result<Change, LevelError> {
        let mut levels = self.0.levels.lock();
        levels.operator = level;
        self.reload(&mut levels)
    }

    /// Goes back to the level of the settings, unless there was a later change. Returns true if
    /// there was none.
    pub fn take_back(&self, Change(change): Change) -> bool {
        let mut levels = self.0.levels.lock();
        let last = levels.changes == change;
        if last {
            levels.operator = None;
        }
        last && self.reload(&mut levels).is_ok()
    }

    /// The level in force.
    pub fn level(&self) -> Level {
        self.0.levels.lock().in_force().clone()
    }

    fn reload(&self, levels: &mut Levels) -> Result<Change, LevelError> {
        self.0.filter.reload(levels.filter()).map_err(|_| LevelError::Ended)?;
        levels.changes += 1;
        Ok(Change(levels.changes))
    }

    /// Opens the files again, for logrotate.
    pub fn reopen(&self) {
        let Places { main, denied, audit, .. } = &self.0.places;
        main.reopen();
        denied.iter().for_each(Sink::reopen);
        audit.iter().for_each(AuditFile::reopen);
    }

    /// Counts dropped lines in `metrics`.
    pub fn count_in(&self, metrics: LineMetrics) {
        self.0.places.dropped.count_in(metrics);
    }

    /// Waits until the lines so far are written, a few seconds at most.
    pub fn flush(&self) {
        let Places { main, denied, .. } = &self.0.places;
        main.flush();
        denied.iter().for_each(Sink::flush);
    }
}

/// Starts logging for the process. May be called once.
///
/// # Errors
/// Fails if a file cannot be opened.
pub fn init(settings: &LogSettings) -> Result<LogHandle, StartError> {
    let terminal = settings.file.is_none() && io::stderr().is_terminal();
    let places = Places::open(settings, Stream(io::stderr()))?;
    let (subscriber, handle) = subscriber(settings, terminal, places);
    tracing::subscriber::set_global_default(subscriber).map_err(StartError::Again)?;
    Ok(handle)
}

impl Places {
    /// The places that `settings` name. `stream` is that of the main log without a file.
    fn open(
        settings: &LogSettings,
        stream: Stream<impl io::Write + Send + 'static>,
    ) -> Result<Self, StartError> {
        let dropped = Dropped::default();
        let rotation = Rotation {
            max_bytes: settings.max_bytes as u64,
            max_age: settings.max_age,
            keep: settings.keep,
        };
        let tell = if settings.format == Format::Text { tell_text } else { tell_json };
        let open = |setting, path: &Path| {
            LogFile::open(path, rotation, tell).map_err(|source| StartError::File {
                setting,
                path: path.display().to_string(),
                source,
            })
        };
        let main = match &settings.file {
            Some(path) => Sink::start("tollgate-log", open("log.file", path)?, dropped.clone()),
            None => Sink::start("tollgate-log", stream, dropped.clone()),
        };
        let main = main.map_err(StartError::Thread)?;
        let denied = settings.denied_file.as_deref().map(|path| {
            let file = open("log.denied_file", path)?;
            Sink::start("tollgate-denied", file, dropped.clone()).map_err(StartError::Thread)
        });
        let audit = settings.audit_file.as_deref().map(|path| {
            Ok::<_, StartError>(AuditFile::new(open("log.audit_file", path)?, main.clone()))
        });
        Ok(Self { denied: denied.transpose()?, audit: audit.transpose()?, main, dropped })
    }
}

/// Writes a message about a log file to standard error, as the log itself cannot take it.
fn tell_text(message: &str) {
    let _ = writeln!(io::stderr(), "ERROR tollgate::telemetry::logs: {message}");
}

fn tell_json(message: &str) {
    let line = serde_json::json!({
        "level": "ERROR", "message": message, "target": "tollgate::telemetry::logs"
    });
    let _ = writeln!(io::stderr(), "{line}");
}

/// The subscriber below the layers that write.
type Filtered = Layered<reload::Layer<EnvFilter, Registry>, Registry>;

/// A layer that writes lines.
type Lines = Box<dyn Layer<Filtered> + Send + Sync>;

/// Makes a subscriber that writes to `places`; `terminal` says if the main one is a terminal.
fn subscriber(
    settings: &LogSettings,
    terminal: bool,
    places: Places,
) -> (impl Subscriber + Send + Sync + 'static, LogHandle) {
    let format = settings.format;
    let (audit, denied) = (places.audit.clone(), places.denied.clone());
    let always = (audit.is_some(), settings.denied || denied.is_some());
    let (apart_audit, apart_denied) = (audit.is_some(), denied.is_some());
    let mut layers = Vec::new();
    if apart_audit || apart_denied {
        let is_main = move |metadata: &Metadata<'_>| match metadata.target() {
            AUDIT => !apart_audit,
            DENIED => !apart_denied,
            _ => true,
        };
        let main = lines(format, terminal, places.main.clone());
        layers.push(main.with_filter(filter::filter_fn(is_main)).boxed());
    } else {
        layers.push(lines(format, terminal, places.main.clone()));
    }
    let of = |target| filter::filter_fn(move |metadata| metadata.target() == target);
    layers.extend(audit.map(|file| lines(format, false, file).with_filter(of(AUDIT)).boxed()));
    layers.extend(denied.map(|sink| lines(format, false, sink).with_filter(of(DENIED)).boxed()));
    let level = settings.level.clone();
    let levels = Levels { settings: level, operator: None, always, changes: 0 };
    let (filter, handle) = reload::Layer::new(levels.filter());
    let inner = Inner { filter: handle, levels: Mutex::new(levels), places };
    (Registry::default().with(filter).with(layers), LogHandle(Arc::new(inner)))
}

/// A layer that writes to `writer`; `terminal` says if that is a terminal.
fn lines<W>(format: Format, terminal: bool, writer: W) -> Lines
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let text = format == Format::Text || (format == Format::Auto && terminal);
    match (text, terminal) {
        // The default of the layer honours NO_COLOR.
        (true, true) => lines.boxed(),
        (true, false) => lines.with_ansi(false).boxed(),
        (false, _) => {
            lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
        }
    }
}
