//! The settings of statsd.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::settings::{HostPort, Reader, Setting, quoted, section, words};

section! {
    /// Statistics to a statsd server, under the names of envoyproxy/ratelimit.
    pub struct StatsdSettings in "statsd" {
        /// Host and port of the server; unset = none is sent.
        address: Option<HostPort> = "",
        /// `tcp` or `udp`. `dogstatsd` always goes over UDP.
        protocol: Protocol = "tcp",
        /// The form of tags: `statsd` (in the name, `.__tag=value`) or `dogstatsd` (after the
        /// value, `#tag:value`).
        flavor: Flavor = "statsd",
        /// Time between two reports.
        interval: Duration = "10s" in MIN_INTERVAL..,
        /// Text before each name.
        prefix: String = "",
        /// Tags of each line, such as `[env=prod, zone=b]`.
        tags: Tags = "",
    }
}

/// Tags with their values, by name.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Tags(BTreeMap<String, String>);

impl Tags {
    /// Each tag with its value, in the order of their names.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(tag, value)| (tag.as_str(), value.as_str()))
    }
}

impl Setting for Tags {
    const EXPECTED: &'static str = "a list such as [env=prod, zone=b]";
    const LIST: bool = true;

    fn parse(text: &str) -> Option<Self> {
        let tag = |item: &str| {
            let (tag, value) = item.trim().split_once('=')?;
            (!tag.is_empty()).then(|| (tag.to_owned(), value.to_owned()))
        };
        text.split(',').map(tag).collect::<Option<_>>().map(Self)
    }

    fn show(&self) -> String {
        let items = self.iter().map(|(tag, value)| quoted(&format!("{tag}={value}")));
        format!("[{}]", items.collect::<Vec<_>>().join(", "))
    }

    fn unset() -> Option<Self> {
        Some(Self::default())
    }
}

/// The least time between two reports.
const MIN_INTERVAL: Duration = Duration::from_millis(10);

/// The transport of lines.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

words!(Protocol { "tcp" => Tcp, "udp" => Udp });

/// The form of tags.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Flavor {
    /// In the name.
    Statsd,
    /// After the value.
    Dogstatsd,
}

words!(Flavor { "statsd" => Statsd, "dogstatsd" => Dogstatsd });

impl StatsdSettings {
    /// The rules of its values.
    pub(crate) fn resolve(&self, reader: &mut Reader) {
        let clean = |c: char| c.is_ascii_graphic() && !matches!(c, ':' | '|' | '@' | '#');
        if !self.prefix.chars().all(clean) {
            let message = format!(
                "found {:?}, expected printable characters without space, `:`, `|`, `@` and `#`",
                self.prefix
            );
            reader.refuse("statsd.prefix", message);
        }
    }

    /// The transport of lines.
    pub(super) const fn transport(&self) -> Protocol {
        match self.flavor {
            Flavor::Statsd => self.protocol,
            Flavor::Dogstatsd => Protocol::Udp,
        }
    }
}
