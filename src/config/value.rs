//! How each type of setting is read from text and shown again.
//!
//! Every source gives text in the end (a YAML scalar, a variable, a flag), so a value means the same
//! wherever it was written.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderName;

use super::RuntimeShape;
use super::read::Reader;
use super::secret::{RedisUrl, Secret};
use crate::edge::grpc::headers::HeaderStyle;
use crate::limiter::mode::Mode;
use crate::policy::{AlgorithmName, OnStoreFailure};
use crate::telemetry::logs::{Format, Level};

/// The longest duration a setting may have; timers far beyond it would overflow.
const LONGEST: Duration = Duration::from_hours(365 * 24);

/// A type that a setting may have.
pub(super) trait Setting: Sized {
    /// What is expected, to follow "expected".
    const EXPECTED: &'static str;
    /// Whether a fault must not repeat the value.
    const SECRET: bool = false;
    /// Whether it is a mapping rather than a scalar.
    const MAPPING: bool = false;

    /// The value that `text` means.
    fn parse(text: &str) -> Option<Self>;

    /// The value as YAML, such that [`parse`](Self::parse) would give it again; secrets redacted.
    fn show(&self) -> String;

    /// What may help when `text` was refused.
    fn hint(_text: &str) -> Option<String> {
        None
    }

    /// What a null or an empty value means; nothing: it is a value like any other.
    fn unset() -> Option<Self> {
        None
    }

    /// Takes the setting from the merged sources.
    fn read(reader: &mut Reader, section: &str, name: &str) -> Option<Self> {
        reader.scalar(section, name)
    }
}

impl<T: Setting> Setting for Option<T> {
    const EXPECTED: &'static str = T::EXPECTED;
    const SECRET: bool = T::SECRET;

    fn parse(text: &str) -> Option<Self> {
        T::parse(text).map(Some)
    }

    fn show(&self) -> String {
        self.as_ref().map_or_else(|| "null".to_owned(), T::show)
    }

    fn hint(text: &str) -> Option<String> {
        T::hint(text)
    }

    fn unset() -> Option<Self> {
        Some(None)
    }
}

impl Setting for bool {
    const EXPECTED: &'static str = "true or false";

    fn parse(text: &str) -> Option<Self> {
        text.to_ascii_lowercase().parse().ok()
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Setting for usize {
    const EXPECTED: &'static str = "a whole number";

    fn parse(text: &str) -> Option<Self> {
        text.replace('_', "").parse().ok()
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Setting for String {
    const EXPECTED: &'static str = "text";

    fn parse(text: &str) -> Option<Self> {
        Some(text.to_owned())
    }

    fn show(&self) -> String {
        quoted(self)
    }
}

impl Setting for PathBuf {
    const EXPECTED: &'static str = "a path";

    fn parse(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| Self::from(text))
    }

    fn show(&self) -> String {
        quoted(&self.to_string_lossy())
    }
}

impl Setting for Duration {
    const EXPECTED: &'static str = "a duration such as 10ms, 2s or 5m, at most 365 days";

    fn parse(text: &str) -> Option<Self> {
        humantime::parse_duration(text).ok().filter(|duration| *duration <= LONGEST)
    }

    fn show(&self) -> String {
        humantime::format_duration(*self).to_string()
    }

    fn hint(text: &str) -> Option<String> {
        let number = text.parse::<f64>().is_ok();
        number.then(|| format!("add a unit: {text}ms or {text}s"))
    }
}

impl Setting for SocketAddr {
    const EXPECTED: &'static str = "an address and port such as 0.0.0.0:8081 or [::1]:0";

    /// An address, `localhost:PORT` (127.0.0.1) or `:PORT` (0.0.0.0). No other name: which of its addresses
    /// is meant would depend on the resolver of the day.
    fn parse(text: &str) -> Option<Self> {
        if let Ok(address) = text.parse() {
            return Some(address);
        }
        let (host, port) = text.rsplit_once(':')?;
        let ip = match host {
            "localhost" => Ipv4Addr::LOCALHOST,
            "" => Ipv4Addr::UNSPECIFIED,
            _ => return None,
        };
        Some(Self::new(IpAddr::V4(ip), port.parse().ok()?))
    }

    fn show(&self) -> String {
        quoted(&self.to_string())
    }

    fn hint(text: &str) -> Option<String> {
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Some(format!("add a port: {}", Self::new(ip, 8081)));
        }
        let port = text.parse::<u16>().ok()?;
        Some(format!("write 0.0.0.0:{port}, or 127.0.0.1:{port} for this machine only"))
    }
}

impl Setting for HeaderName {
    const EXPECTED: &'static str = "the name of an HTTP header";

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn show(&self) -> String {
        quoted(self.as_str())
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

impl Setting for Secret {
    const EXPECTED: &'static str = "text that is not empty";
    const SECRET: bool = true;

    fn parse(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| Self::new(text))
    }

    /// A loaded placeholder would be taken for the secret, so there is none.
    fn show(&self) -> String {
        "null # set, not shown".to_owned()
    }
}

impl Setting for RedisUrl {
    const EXPECTED: &'static str = "a URL such as redis://user:password@host:6379/0";
    const SECRET: bool = true;

    fn parse(text: &str) -> Option<Self> {
        Self::new(text).ok()
    }

    fn show(&self) -> String {
        quoted(&self.to_string())
    }

    fn hint(text: &str) -> Option<String> {
        Self::new(text).err()
    }
}

/// Implements [`Setting`] for a choice of words.
macro_rules! words {
    ($type:ty, $expected:literal, $($word:literal => $value:path),+) => {
        impl Setting for $type {
            const EXPECTED: &'static str = $expected;

            fn parse(text: &str) -> Option<Self> {
                let words = [$(($word, $value)),+];
                let known = words.into_iter().find(|(word, _)| word.eq_ignore_ascii_case(text));
                known.map(|(_, value)| value)
            }

            fn show(&self) -> String {
                match self {
                    $($value => quoted($word)),+
                }
            }
        }
    };
}

words!(Mode, "enforce, shadow or off",
    "enforce" => Self::Enforce, "shadow" => Self::Shadow, "off" => Self::Off);
words!(RuntimeShape, "per_core or shared", "per_core" => Self::PerCore, "shared" => Self::Shared);
words!(OnStoreFailure, "allow or deny", "allow" => Self::Allow, "deny" => Self::Deny);
words!(AlgorithmName, "sliding_window, token_bucket or fixed_window",
    "sliding_window" => Self::SlidingWindow, "token_bucket" => Self::TokenBucket,
    "fixed_window" => Self::FixedWindow);
words!(HeaderStyle, "off, reference or draft",
    "off" => Self::Off, "reference" => Self::Reference, "draft" => Self::Draft);
words!(Format, "auto, text or json",
    "auto" => Self::Auto, "text" => Self::Text, "json" => Self::Json);

/// Modes by domain.
impl Setting for BTreeMap<String, Mode> {
    const EXPECTED: &'static str = "a mapping from domain to enforce, shadow or off";
    const MAPPING: bool = true;

    fn parse(text: &str) -> Option<Self> {
        text.is_empty().then(Self::new)
    }

    fn show(&self) -> String {
        let pairs = self.iter().map(|(name, mode)| format!("{}: {}", quoted(name), mode.show()));
        format!("{{{}}}", pairs.collect::<Vec<_>>().join(", "))
    }

    fn read(reader: &mut Reader, section: &str, name: &str) -> Option<Self> {
        reader.mapping(section, name)
    }
}

/// Text as a YAML scalar. Bare only where every YAML dialect reads it as that text.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '/' | '.');
    // Booleans or null, to some readers at least.
    let special = ["true", "false", "yes", "no", "on", "off", "y", "n", "null"];
    if text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(plain)
        && !special.contains(&&*text.to_ascii_lowercase())
    {
        return text.to_owned();
    }
    let escaped: String = text.chars().map(escaped).collect();
    format!("\"{escaped}\"")
}

/// A character as double-quoted YAML has it.
fn escaped(c: char) -> String {
    match c {
        '"' | '\\' => format!("\\{c}"),
        c if c.is_control() => format!("\\u{:04x}", u32::from(c)),
        c => c.to_string(),
    }
}
