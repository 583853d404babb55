//! The types of settings: read from text, and shown again.
//!
//! Every source gives text in the end (a YAML scalar, a variable, a flag), so a value means the
//! same wherever it was written.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderName;

use super::read::Setting;

/// The longest duration a setting may have; timers far beyond it would overflow.
const MAX_DURATION: Duration = Duration::from_hours(365 * 24);

/// The least duration that is any time at all.
pub(crate) const SOME_TIME: Duration = Duration::from_nanos(1);

/// The value of a declared default.
#[expect(clippy::expect_used, reason = "a test makes the default of every section")]
pub(crate) fn declared<T: Setting>(default: &str) -> T {
    let unset = default.is_empty().then(T::unset).flatten();
    unset.or_else(|| T::parse(default)).expect("declared defaults are valid")
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

/// Implements [`Setting`] for types of whole numbers.
macro_rules! whole_numbers {
    ($($type:ty),+) => {
        $(impl Setting for $type {
            const EXPECTED: &'static str = "a whole number";

            fn parse(text: &str) -> Option<Self> {
                text.replace('_', "").parse().ok()
            }

            fn show(&self) -> String {
                self.to_string()
            }

            fn hint(text: &str) -> Option<String> {
                let large = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
                large.then(|| format!("at most {}", Self::MAX))
            }
        })+
    };
}

whole_numbers!(usize, u32);

/// A part of a whole.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio(f32);

impl Ratio {
    /// From 0 to 1.
    pub const fn get(self) -> f32 {
        self.0
    }
}

impl Setting for Ratio {
    const EXPECTED: &'static str = "a number from 0 to 1, such as 0.8";

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio)).map(Self)
    }

    fn show(&self) -> String {
        self.0.to_string()
    }
}

impl Setting for f64 {
    const EXPECTED: &'static str = "a number";

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok().filter(|number: &Self| number.is_finite())
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
        humantime::parse_duration(text).ok().filter(|duration| *duration <= MAX_DURATION)
    }

    fn show(&self) -> String {
        humantime::format_duration(*self).to_string()
    }

    fn hint(text: &str) -> Option<String> {
        let number = text.parse::<f64>().is_ok();
        number.then(|| format!("add a unit: {text}ms or {text}s"))
    }

    fn at_least(least: &Self) -> String {
        if *least == SOME_TIME {
            "a longer time".to_owned()
        } else {
            format!("at least {}", least.show())
        }
    }
}

impl Setting for SocketAddr {
    const EXPECTED: &'static str = "an address and port such as 0.0.0.0:8081 or [::1]:0";

    /// An address, `localhost:PORT` (127.0.0.1) or `:PORT` (0.0.0.0). No other name: which of its
    /// addresses is meant would depend on the resolver of the day.
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

/// A host name or an IP address, and a port.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HostPort {
    /// The name or address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl HostPort {
    /// The host and the port of `text`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.trim().rsplit_once(':')?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = bare.unwrap_or(host);
        // The colons of an IPv6 address would be taken for the one before the port.
        let ambiguous = host.contains(':') != bare.is_some();
        let clean =
            |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '/' | '@' | ',');
        let sound = !host.is_empty() && !ambiguous && host.chars().all(clean);
        let port = port.parse().ok().filter(|port| *port != 0 && sound)?;
        Some(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

impl Setting for HostPort {
    const EXPECTED: &'static str = "a host and port such as localhost:8125";

    fn parse(text: &str) -> Option<Self> {
        Self::parse(text)
    }

    fn show(&self) -> String {
        format!("\"{self}\"")
    }
}

impl Setting for Vec<HostPort> {
    const EXPECTED: &'static str = "a list such as [redis-1:26379, redis-2:26379]";
    const LIST: bool = true;

    fn parse(text: &str) -> Option<Self> {
        text.split(',').map(HostPort::parse).collect()
    }

    fn show(&self) -> String {
        let items = self.iter().map(|item| format!("\"{item}\"")).collect::<Vec<_>>();
        format!("[{}]", items.join(", "))
    }

    fn hint(text: &str) -> Option<String> {
        let scheme = text.contains("://");
        scheme.then(|| "write host:port without redis://; redis.tls.enabled sets TLS".to_owned())
    }

    fn unset() -> Option<Self> {
        Some(Self::new())
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

/// Makes a mapping from names to values of a type a [`Setting`].
macro_rules! mappings {
    ($type:ty, $expected:literal) => {
        impl $crate::settings::Setting for std::collections::BTreeMap<String, $type> {
            const EXPECTED: &'static str = $expected;
            const SECRET: bool = <$type as $crate::settings::Setting>::SECRET;
            const MAPPING: bool = true;

            fn parse(text: &str) -> Option<Self> {
                text.is_empty().then(Self::new)
            }

            fn show(&self) -> String {
                let pair = |(name, value): (&String, &$type)| {
                    let value = $crate::settings::Setting::show(value);
                    format!("{}: {value}", $crate::settings::quoted(name))
                };
                format!("{{{}}}", self.iter().map(pair).collect::<Vec<_>>().join(", "))
            }

            fn read(
                reader: &mut $crate::settings::Reader,
                section: &str,
                name: &str,
                _default: &str,
            ) -> Option<Self> {
                reader.mapping(section, name)
            }
        }
    };
}

pub(crate) use mappings;

/// Text as a YAML scalar. Bare only where every YAML dialect reads it as that text.
pub(crate) fn quoted(text: &str) -> String {
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
