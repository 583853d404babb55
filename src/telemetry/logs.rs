//! Log lines on standard error: text or JSON, with a level that can change at run time.
//!
//! Callers must [escape](super::escape::escape) values from requests. There are no log files and no
//! rotation; that is the job of the supervisor.

use std::fmt;
use std::io::{self, IsTerminal};
use std::sync::Arc;

use tracing::Subscriber;
use tracing::metadata::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use crate::settings::{Setting, quoted, section, words};

section! {
    /// Logs, on standard error.
    pub struct LogSettings in "log" {
        /// off, error, warn, info, debug, trace, or directives such as
        /// `info,tollgate::store=debug`.
        level: Level = "info",
        /// `auto` = text on a terminal, otherwise json; `text`; `json`.
        format: Format = "auto",
    }
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Format {
    /// Text if standard error is a terminal, otherwise JSON.
    #[default]
    Auto,
    /// One readable line per event; colours on a terminal, unless `NO_COLOR` is set.
    Text,
    /// One flat JSON object per line: `timestamp`, `level`, `message`, the event's fields,
    /// `target`.
    Json,
}

words!(Format { "auto" => Auto, "text" => Text, "json" => Json });

/// The log filter: a level, or directives `TARGET=LEVEL` separated by commas.
#[derive(Clone, Eq, PartialEq)]
pub struct Level(Arc<str>);

impl Level {
    /// Parses a filter.
    ///
    /// # Errors
    /// Fails if the filter is malformed. Also fails on a bare word that is not a level: it could be
    /// a target, but is usually a typo, and as a target it would log everything of it and nothing
    /// of the rest.
    pub fn new(text: &str) -> Result<Self, LevelError> {
        let parts: Vec<_> = text.split(',').map(str::trim).collect();
        for part in &parts {
            let directive = part.contains(['=', '[']);
            if part.is_empty() || (!directive && part.parse::<LevelFilter>().is_err()) {
                return Err(LevelError::Word((*part).to_owned()));
            }
        }
        let text = parts.join(",");
        match EnvFilter::builder().with_regex(false).parse(&text) {
            Ok(_) => Ok(Self(text.into())),
            Err(error) => Err(LevelError::Directive(error.to_string())),
        }
    }

    /// The text of the filter, without blanks around its parts.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn filter(&self) -> EnvFilter {
        EnvFilter::builder().with_regex(false).parse_lossy(self.as_str())
    }
}

impl fmt::Debug for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl Setting for Level {
    const EXPECTED: &'static str =
        "off, error, warn, info, debug or trace, or directives such as info,tollgate::store=debug";

    fn parse(text: &str) -> Option<Self> {
        Self::new(text).ok()
    }

    fn show(&self) -> String {
        quoted(self.as_str())
    }

    fn hint(text: &str) -> Option<String> {
        Self::new(text).err().map(|error| error.to_string())
    }
}

/// The reason why a filter was rejected.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum LevelError {
    /// A part is neither a level nor a directive.
    #[error("{0:?} is no level; for one target write TARGET=LEVEL")]
    Word(String),
    /// A directive cannot be parsed.
    #[error("{0}")]
    Directive(String),
    /// The subscriber no longer exists.
    #[error("logging has ended")]
    Ended,
}

/// The error if a subscriber is already installed.
#[derive(Debug, thiserror::Error)]
#[error("logging was started before")]
pub struct AlreadyStarted(#[source] tracing::subscriber::SetGlobalDefaultError);

/// Changes the log filter at run time.
#[derive(Clone, Debug)]
pub struct LogHandle(reload::Handle<EnvFilter, Registry>);

impl LogHandle {
    /// Sets the log filter of all threads. An invalid filter changes nothing.
    pub fn set_level(&self, level: &str) -> Result<(), LevelError> {
        let level = Level::new(level)?;
        self.0.reload(level.filter()).map_err(|_| LevelError::Ended)
    }
}

/// Starts logging for the process. May be called once.
pub fn init(level: &Level, format: Format) -> Result<LogHandle, AlreadyStarted> {
    let (subscriber, handle) = subscriber(level, format, io::stderr().is_terminal(), io::stderr);
    tracing::subscriber::set_global_default(subscriber).map_err(AlreadyStarted)?;
    Ok(handle)
}

/// Makes a subscriber that writes to `writer`; `terminal` says if that is a terminal.
fn subscriber<W>(
    level: &Level,
    format: Format,
    terminal: bool,
    writer: W,
) -> (impl Subscriber + Send + Sync + 'static, LogHandle)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let text = format == Format::Text || (format == Format::Auto && terminal);
    let lines = match (text, terminal) {
        // The default of the layer honours NO_COLOR.
        (true, true) => lines.boxed(),
        (true, false) => lines.with_ansi(false).boxed(),
        (false, _) => {
            lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
        }
    };
    let (filter, handle) = reload::Layer::new(level.filter());
    (Registry::default().with(filter).with(lines), LogHandle(handle))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use parking_lot::Mutex;
    use tracing::subscriber::with_default;

    use super::*;

    /// A writer that keeps its input.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Kept {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().clone()).unwrap()
        }
    }

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn log(level: &str, format: Format, terminal: bool, events: impl FnOnce(LogHandle)) -> String {
        let kept = Kept::default();
        let writer = kept.clone();
        let level = Level::new(level).unwrap();
        let (subscriber, handle) = subscriber(&level, format, terminal, move || writer.clone());
        with_default(subscriber, || events(handle));
        kept.text()
    }

    #[test]
    fn json_lines_are_flat_objects() {
        for format in [Format::Json, Format::Auto] {
            let text = log("info", format, false, |_| {
                let _span = tracing::info_span!("request", id = 7).entered();
                tracing::warn!(target: "tollgate::test", domain = "a\n\"b\"", hits = 3, "over limit");
            });
            let line: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
            assert_eq!(text.lines().count(), 1);
            assert_eq!(line["level"], "WARN");
            assert_eq!(line["message"], "over limit");
            assert_eq!(line["target"], "tollgate::test");
            assert_eq!(line["domain"], "a\n\"b\"");
            assert_eq!(line["hits"], 3);
            assert!(line["timestamp"].as_str().unwrap().ends_with('Z'), "{text}");
            assert_eq!(line.as_object().unwrap().len(), 6, "{text}");
        }
    }

    #[test]
    fn text_is_chosen_for_a_terminal_and_plain_elsewhere() {
        let event = |_| tracing::info!(port = 8081, "listening");
        let plain = log("info", Format::Text, false, event);
        assert!(plain.contains("INFO") && plain.contains("listening port=8081"), "{plain:?}");
        assert!(!plain.contains('\u{1b}'), "{plain:?}");
        let terminal = log("info", Format::Auto, true, event);
        assert!(!terminal.starts_with('{') && terminal.contains("listening"), "{terminal:?}");
    }

    #[test]
    fn level_changes_at_run_time_and_a_bad_one_changes_nothing() {
        let text = log("warn", Format::Json, false, |handle| {
            tracing::info!("first");
            handle.set_level("info").unwrap();
            tracing::info!("second");
            assert_eq!(handle.set_level("infoo"), Err(LevelError::Word("infoo".to_owned())));
            tracing::info!("third");
            handle.set_level("info,tollgate::quiet=off").unwrap();
            tracing::error!(target: "tollgate::quiet", "fourth");
            tracing::info!("fifth");
        });
        let logged = ["first", "second", "third", "fourth", "fifth"];
        let logged: Vec<_> = logged.into_iter().filter(|word| text.contains(word)).collect();
        assert_eq!(logged, ["second", "third", "fifth"]);
    }

    #[test]
    fn levels_and_directives_are_checked() {
        for good in
            ["info", "OFF", "warn,tollgate=debug", "info, tollgate::store=trace", "a[b]=info"]
        {
            assert_eq!(Level::new(good).unwrap().as_str(), good.replace(' ', ""));
        }
        for bad in ["", "infoo", "tollgate", "info,", "tollgate=loud", "verbose,tollgate=info"] {
            assert!(Level::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn handle_outlives_its_subscriber() {
        let (gone, handle) =
            subscriber(&Level::new("info").unwrap(), Format::Text, false, io::sink);
        drop(gone);
        assert_eq!(handle.set_level("debug"), Err(LevelError::Ended));
    }
}
