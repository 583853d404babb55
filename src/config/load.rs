//! Loads settings: defaults < file < environment < flags, then the rules between settings.
//!
//! The process environment is an argument, so that a load depends on nothing else but the files it names.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fmt, fs};

use super::Settings;
use super::fault::Faults;
use super::print;
use super::raw::Layer;
use super::read::{Reader, Resolved};
use super::secret::{RedisUrl, Secret};

/// Where settings come from, weakest first. `Debug` shows none of the values, which may be secrets.
#[derive(Clone, Default)]
pub struct Sources {
    /// The settings file.
    pub file: Option<PathBuf>,
    /// Environment variables; those without the prefix are passed over.
    pub environment: Vec<(OsString, OsString)>,
    /// `KEY=VALUE` pairs of `--set`, dotted; a later pair wins.
    pub set: Vec<Secret>,
    /// The flag `--policies`.
    pub policies: Option<String>,
    /// The flag `--redis-url`.
    pub redis_url: Option<Secret>,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, policies, .. } = self;
        let mut sources = f.debug_struct("Sources");
        sources.field("file", file).field("policies", policies).finish_non_exhaustive()
    }
}

/// Valid settings, and where each came from.
#[derive(Debug)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    resolved: BTreeMap<String, Resolved>,
}

impl Loaded {
    /// Every setting as YAML that can be loaded again, with its meaning and origin as comments; secrets
    /// redacted.
    pub fn to_yaml(&self) -> String {
        print::yaml(&self.resolved)
    }
}

/// Loads and checks the settings.
///
/// # Errors
/// Every fault of every source.
pub fn load(sources: &Sources) -> Result<Loaded, Faults> {
    let mut faults = Faults::default();
    let merged = config::Config::builder()
        .add_source(Layer::defaults())
        .add_source(Layer::file(sources, &mut faults))
        .add_source(Layer::environment(sources, &mut faults))
        .add_source(Layer::flags(sources, &mut faults))
        .build()
        .and_then(|merged| merged.cache.into_table());
    let merged = match merged {
        Ok(merged) => merged,
        Err(error) => {
            faults.add("settings", "", error.to_string());
            return Err(faults);
        }
    };
    let mut reader = Reader::new(merged, faults);
    let settings = Settings::read(&mut reader).map(|settings| resolve(settings, &mut reader));
    match settings {
        Some(settings) if reader.faults.0.is_empty() => {
            Ok(Loaded { settings, resolved: reader.resolved })
        }
        _ => Err(reader.faults),
    }
}

/// Reads secrets from their files and applies the rules that no type expresses.
fn resolve(mut settings: Settings, reader: &mut Reader) -> Settings {
    settings.grpc.max_connection_age =
        settings.grpc.max_connection_age.filter(|age| !age.is_zero());
    if let Some(path) = &settings.redis.url_file {
        let given = settings.redis.url.is_some();
        if let Some(text) = secret_file(reader, "redis.url", given, path) {
            match RedisUrl::new(&text) {
                Ok(url) => settings.redis.url = Some(url),
                Err(error) => {
                    reader.refuse("redis.url_file", format!("{}: {error}", path.display()));
                }
            }
        }
    }
    if let Some(path) = &settings.general.sensitive_key_file {
        let given = settings.general.sensitive_key.is_some();
        if let Some(text) = secret_file(reader, "sensitive_key", given, path) {
            settings.general.sensitive_key = Some(Secret::new(&text));
        }
    }
    if let Some(path) = &settings.admin.token_file {
        let given = settings.admin.token.is_some();
        if let Some(text) = secret_file(reader, "admin.token", given, path) {
            settings.admin.token = Some(Secret::new(&text));
        }
    }
    listeners(&settings, reader);
    numbers(&settings, reader);
    durations(&settings, reader);
    texts(&settings, reader);
    settings
}

/// The content of the file that `dotted`_file names, without the line end that editors add.
fn secret_file(reader: &mut Reader, dotted: &str, given: bool, path: &Path) -> Option<String> {
    let key = format!("{dotted}_file");
    if given {
        reader.refuse(&key, format!("{dotted} is set too; set one of them"));
        return None;
    }
    match fs::read_to_string(path) {
        Ok(text) if text.trim_end_matches(['\r', '\n']).is_empty() => {
            reader.refuse(&key, format!("{} is empty", path.display()));
            None
        }
        Ok(text) => Some(text.trim_end_matches(['\r', '\n']).to_owned()),
        Err(error) => {
            reader.refuse(&key, format!("{} cannot be read: {error}", path.display()));
            None
        }
    }
}

fn listeners(settings: &Settings, reader: &mut Reader) {
    let admin = settings.admin.listen;
    let asks = settings.admin.token.is_some() || settings.admin.token_file.is_some();
    if !admin.ip().is_loopback() && !asks {
        reader.refuse(
            "admin.listen",
            format!(
                "found {admin}, but without a token the admin listener serves loopback only; set \
                 admin.token or admin.token_file, or write 127.0.0.1:{}",
                admin.port()
            ),
        );
    }
    let all = [
        ("grpc.listen", settings.grpc.listen),
        ("admin.listen", admin),
        ("http.listen", settings.http.listen),
    ];
    for (index, (key, address)) in all.iter().enumerate() {
        for (other_key, other) in all.iter().take(index) {
            let same_ip = address.ip() == other.ip()
                || address.ip().is_unspecified()
                || other.ip().is_unspecified();
            let same = address.port() != 0 && address.port() == other.port() && same_ip;
            if same && reader.is_sound(key) && reader.is_sound(other_key) {
                reader.refuse(key, format!("{address} is taken by {other_key} ({other})"));
            }
        }
    }
}

fn numbers(settings: &Settings, reader: &mut Reader) {
    let (bounds, listeners) = (&settings.bounds, &settings.listeners);
    for (key, value, least, most) in [
        ("grpc.cores", settings.grpc.cores, 0, 1_024),
        ("redis.frames_in_flight", settings.redis.frames_in_flight, 1, 64),
        ("redis.frame_limits", settings.redis.frame_limits, 1, 1_000),
        ("deny_cache.max_keys", settings.deny_cache.max_keys, 0, 10_000_000),
        ("store.memory_max_keys", settings.store.memory_max_keys, 1, usize::MAX),
        ("bounds.message_bytes", bounds.message_bytes, 1, 64 << 20),
        ("bounds.descriptors", bounds.descriptors, 1, usize::MAX),
        ("bounds.entries", bounds.entries, 1, usize::MAX),
        ("bounds.key_bytes", bounds.key_bytes, 1, usize::MAX),
        ("bounds.value_bytes", bounds.value_bytes, 1, usize::MAX),
        // A node of a policy, and a client, may have 16.
        ("bounds.limits", bounds.limits, 16, usize::MAX),
        ("listeners.max_connections", listeners.max_connections, 1, usize::MAX),
        ("listeners.max_connections_per_peer", listeners.max_connections_per_peer, 1, usize::MAX),
        ("listeners.max_streams", listeners.max_streams, 1, 1 << 20),
        ("listeners.max_header_bytes", listeners.max_header_bytes, 4_096, 16 << 20),
        ("metrics.max_series", settings.metrics.max_series, 1, usize::MAX),
    ] {
        if value < least {
            reader.refuse(key, format!("found {value}, expected at least {least}"));
        } else if value > most {
            reader.refuse(key, format!("found {value}, expected at most {most}"));
        }
    }
}

fn durations(settings: &Settings, reader: &mut Reader) {
    for (key, value) in [
        ("grpc.keepalive_interval", settings.grpc.keepalive_interval),
        ("grpc.keepalive_timeout", settings.grpc.keepalive_timeout),
        ("redis.connect_timeout", settings.redis.connect_timeout),
        ("redis.response_timeout", settings.redis.response_timeout),
        ("store.deadline", settings.store.deadline),
    ] {
        if value == Duration::ZERO {
            reader.refuse(key, "found 0s, expected a longer time");
        }
    }
}

fn texts(settings: &Settings, reader: &mut Reader) {
    // Anything else could not be sent in a header.
    let sendable = |token: &Secret| token.expose().bytes().all(|byte| byte.is_ascii_graphic());
    if !settings.admin.token.as_ref().is_none_or(sendable) {
        let file = settings.admin.token_file.is_some();
        let key = if file { "admin.token_file" } else { "admin.token" };
        reader.refuse(key, "expected printable ASCII without blanks, as a header carries it");
    }
    let prefix = &settings.redis.key_prefix;
    // Braces would move the hash tag, and with it the slot, of every key in a Redis Cluster.
    if prefix.chars().any(|c| c.is_control() || matches!(c, '{' | '}')) {
        reader.refuse(
            "redis.key_prefix",
            format!("found {prefix:?}, expected text without braces and control characters"),
        );
    }
    let response = &settings.response;
    let headers = [
        ("response.limit_header", &response.limit_header),
        ("response.remaining_header", &response.remaining_header),
        ("response.reset_header", &response.reset_header),
    ];
    for (index, (key, name)) in headers.iter().enumerate() {
        if let Some((other, _)) = headers.iter().take(index).find(|(_, other)| other == name) {
            reader.refuse(key, format!("{name} is the name of {other} too"));
        }
    }
}
