//! Lines of statsd: `name:value|c`, `name:value|ms|@rate`, with tags.
//!
//! Source: the statsd protocol, the tags of lyft/gostats (in the name, sorted), and `DogStatsD`.

use std::fmt::Write as _;

use super::settings::{Flavor, StatsdSettings, Tags};

/// Writes lines.
#[derive(Debug)]
pub(super) struct Wire {
    prefix: String,
    /// After the name.
    name_tags: String,
    /// After the type.
    tags: String,
}

impl Wire {
    pub(super) fn new(settings: &StatsdSettings) -> Self {
        let StatsdSettings { prefix, tags, flavor, .. } = settings;
        let (name_tags, tags) = match flavor {
            Flavor::Statsd => (name_tags(tags), String::new()),
            Flavor::Dogstatsd => (String::new(), dogstatsd_tags(tags)),
        };
        Self { prefix: prefix.clone(), name_tags, tags }
    }

    /// The line of a counter that has grown by `count`.
    pub(super) fn counter(&self, name: &str, count: u64) -> String {
        self.line(name, &format!("{count}|c"))
    }

    /// The line of `count` durations of about `millis`.
    pub(super) fn timer(&self, name: &str, millis: f64, count: u64) -> String {
        let mut value = format!("{millis}|ms");
        if count > 1 {
            // Writing to a string cannot fail.
            let _ = write!(value, "|@{}", 1.0 / count as f64);
        }
        self.line(name, &value)
    }

    fn line(&self, name: &str, value: &str) -> String {
        let Self { prefix, name_tags, tags } = self;
        format!("{prefix}{name}{name_tags}:{value}{tags}\n")
    }
}

fn name_tags(tags: &Tags) -> String {
    let one = |(tag, value)| format!(".__{}={}", clean(tag), clean(value));
    tags.iter().map(one).collect::<Vec<_>>().concat()
}

fn dogstatsd_tags(tags: &Tags) -> String {
    let one = |(tag, value)| format!("{}:{}", clean(tag), clean(value));
    let pairs: Vec<String> = tags.iter().map(one).collect();
    if pairs.is_empty() { String::new() } else { format!("|#{}", pairs.join(",")) }
}

/// The text without the characters that separate parts of a line.
fn clean(text: &str) -> String {
    let separates = |c: char| matches!(c, ':' | '|' | '@' | '#' | ',' | '=') || c.is_control();
    text.chars().map(|c| if separates(c) { '_' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Setting as _;

    fn wire(flavor: Flavor, tags: &str) -> Wire {
        let tags = if tags.is_empty() { Tags::default() } else { Tags::parse(tags).unwrap() };
        let prefix = "edge.".into();
        Wire::new(&StatsdSettings { flavor, prefix, tags, ..StatsdSettings::default() })
    }

    #[test]
    fn lines_have_prefix_value_type_and_sorted_tags() {
        let plain = wire(Flavor::Statsd, "");
        assert_eq!(plain.counter("a.b", 3), "edge.a.b:3|c\n");
        assert_eq!(plain.timer("t", 0.75, 1), "edge.t:0.75|ms\n");
        assert_eq!(plain.timer("t", 7.5, 4), "edge.t:7.5|ms|@0.25\n");
        let tags = "zone=b, env=a:b\u{7}";
        let statsd = wire(Flavor::Statsd, tags);
        assert_eq!(statsd.counter("a", 1), "edge.a.__env=a_b_.__zone=b:1|c\n");
        let dog = wire(Flavor::Dogstatsd, tags);
        assert_eq!(dog.counter("a", 1), "edge.a:1|c|#env:a_b_,zone:b\n");
    }
}
