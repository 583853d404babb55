//! Lines, formats, levels and files of the log.

use std::fs;

use tracing::subscriber::with_default;

use super::*;
use crate::settings::Setting as _;

/// A writer that keeps its input.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Kept {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().clone()).unwrap()
    }
}

impl io::Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn level(text: &str) -> Level {
    Level::parse(text).unwrap()
}

fn settings(text: &str, format: Format) -> LogSettings {
    LogSettings { level: level(text), format, ..LogSettings::default() }
}

fn log(settings: &LogSettings, terminal: bool, events: impl FnOnce(LogHandle)) -> String {
    let kept = Kept::default();
    let places = Places::open(settings, Stream(kept.clone())).unwrap();
    let (subscriber, handle) = subscriber(settings, terminal, places);
    with_default(subscriber, || events(handle.clone()));
    handle.flush();
    kept.text()
}

fn logged<'a>(text: &str, words: &[&'a str]) -> Vec<&'a str> {
    words.iter().copied().filter(|word| text.contains(word)).collect()
}

#[test]
fn json_lines_are_flat_objects() {
    for format in [Format::Json, Format::Auto] {
        let text = log(&settings("info", format), false, |_| {
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
    let plain = log(&settings("info", Format::Text), false, event);
    assert!(plain.contains("INFO") && plain.contains("listening port=8081"), "{plain:?}");
    assert!(!plain.contains('\u{1b}'), "{plain:?}");
    let terminal = log(&settings("info", Format::Auto), true, event);
    assert!(!terminal.starts_with('{') && terminal.contains("listening"), "{terminal:?}");
}

#[test]
fn level_changes_at_run_time_and_goes_back() {
    let own = settings("warn", Format::Json);
    let text = log(&own, false, |handle| {
        tracing::info!("first");
        let change = handle.set_level(Some(level("info"))).unwrap();
        tracing::info!("second");
        handle.set_level(Some(level("info,tollgate::quiet=off"))).unwrap();
        assert!(!handle.take_back(change), "there was a later change");
        tracing::error!(target: "tollgate::quiet", "third");
        tracing::info!("fourth");
        let change = handle.set_level(Some(level("debug"))).unwrap();
        assert_eq!(handle.level().as_str(), "debug");
        assert!(handle.take_back(change));
        assert_eq!(handle.level().as_str(), "warn");
        tracing::info!("fifth");
        handle.set_level(Some(level("debug"))).unwrap();
        handle.apply(&settings("error", Format::Json)).unwrap();
        assert_eq!(handle.level().as_str(), "error");
        tracing::warn!("sixth");
    });
    let words = ["first", "second", "third", "fourth", "fifth", "sixth"];
    assert_eq!(logged(&text, &words), ["second", "fourth"]);
}

#[test]
fn denials_are_logged_at_every_level_if_they_are_switched_on() {
    let denied = |settings: &LogSettings| {
        let text = log(settings, false, |_| {
            tracing::debug!(target: DENIED, "denial");
            tracing::debug!(target: "tollgate::other", "other");
        });
        logged(&text, &["denial", "other"]).join(" ")
    };
    let on = |level| LogSettings { denied: true, ..settings(level, Format::Json) };
    assert_eq!(denied(&settings("info", Format::Json)), "");
    assert_eq!(denied(&settings("debug", Format::Json)), "denial other");
    assert_eq!(denied(&on("error")), "denial");
    assert_eq!(denied(&on("off")), "denial");
    assert_eq!(denied(&on("info,tollgate::denied=off")), "", "a directive of its own stands");
}

#[test]
fn audit_lines_and_denials_have_files_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| Some(dir.path().join(name));
    let settings = LogSettings {
        file: path("main"),
        audit_file: path("audit"),
        denied_file: path("denied"),
        ..settings("error", Format::Json)
    };
    let text = log(&settings, false, |_| {
        tracing::info!(target: AUDIT, "changed");
        tracing::debug!(target: DENIED, "denial");
        tracing::error!("broken");
        tracing::info!("quiet");
    });
    assert_eq!(text, "", "nothing is on standard error");
    let words = ["changed", "denial", "broken", "quiet"];
    for (name, expected) in [("main", "broken"), ("audit", "changed"), ("denied", "denial")] {
        let text = fs::read_to_string(path(name).unwrap()).unwrap();
        assert_eq!(logged(&text, &words), [expected], "{name}");
        assert_eq!(text.lines().count(), 1, "{name}");
    }
}

#[test]
fn audit_line_that_its_file_does_not_take_goes_to_the_main_log() {
    let settings =
        LogSettings { audit_file: Some("/dev/full".into()), ..settings("info", Format::Json) };
    let lines = LineMetrics::default();
    let text = log(&settings, false, |handle| {
        handle.count_in(lines.clone());
        tracing::info!(target: AUDIT, "changed");
    });
    assert!(text.contains("changed"), "{text}");
    assert_eq!(lines.audit.get(), 1);
}

#[test]
fn file_without_a_directory_is_an_error_with_its_setting() {
    let settings = LogSettings {
        audit_file: Some("/nowhere/audit.log".into()),
        ..settings("info", Format::Json)
    };
    let error = Places::open(&settings, Stream(io::sink())).unwrap_err().to_string();
    assert!(error.starts_with("log.audit_file: /nowhere/audit.log cannot be opened ("), "{error}");
}

#[test]
fn handle_outlives_its_subscriber() {
    let settings = settings("info", Format::Text);
    let places = Places::open(&settings, Stream(io::sink())).unwrap();
    let (gone, handle) = subscriber(&settings, false, places);
    drop(gone);
    assert_eq!(handle.set_level(None).unwrap_err(), LevelError::Ended);
}
