//! Hits of a rule as envoyproxy/ratelimit counts them, and the key that names the rule.
//!
//! Which hits are over, near or within a limit is decided elsewhere; this adds them up.
//!
//! Source: envoyproxy/ratelimit, `src/stats` and `src/config` (names, and characters that statsd
//! does not take).

use crate::telemetry::sharded::ShardedCounter;

/// The hits of one descriptor.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct HitSplit {
    /// All of them.
    pub total: u64,
    /// Those beyond the limit.
    pub over: u64,
    /// Those between the threshold and the limit.
    pub near: u64,
    /// Those of a descriptor that passes.
    pub within: u64,
    /// Those beyond a limit that is in shadow mode.
    pub shadowed: u64,
}

/// The last part of the names of [`RuleHits`], in their order.
pub(super) const KINDS: [(&str, &str); 5] = [
    ("total_hits", "Hits of descriptors that have a limit"),
    ("over_limit", "Hits beyond the limit"),
    ("near_limit", "Hits between metrics.near_limit_ratio of the limit and the limit"),
    ("within_limit", "Hits of descriptors that pass"),
    ("shadow_mode", "Hits beyond a limit in shadow mode"),
];

/// The counters of one rule, in the order of `KINDS`.
#[derive(Clone, Debug, Default)]
pub struct RuleHits([ShardedCounter; KINDS.len()]);

impl RuleHits {
    /// Adds the hits of a descriptor.
    pub fn add(&self, split: HitSplit) {
        let HitSplit { total, over, near, within, shadowed } = split;
        for (counter, hits) in self.0.iter().zip([total, over, near, within, shadowed]) {
            if hits > 0 {
                counter.inc_by(hits);
            }
        }
    }

    /// The sums so far, in the order of [`KINDS`].
    pub(super) fn read(&self) -> [u64; KINDS.len()] {
        self.0.each_ref().map(ShardedCounter::get)
    }
}

/// A rule as envoyproxy/ratelimit names it: the domain, and the nodes on the way to it.
///
/// Keys order such that rules with the same first nodes are neighbours.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct MetricKey {
    pub(super) domain: String,
    pub(super) nodes: Vec<String>,
}

impl MetricKey {
    pub(super) fn new(domain: &str, nodes: impl IntoIterator<Item = String>) -> Self {
        let nodes = nodes.into_iter().map(|node| sanitised(&node)).collect();
        Self { domain: sanitised(domain), nodes }
    }

    /// The key within a name of statsd.
    pub(super) fn dotted(&self) -> String {
        let parts = [&self.domain].into_iter().chain(&self.nodes).map(String::as_str);
        parts.collect::<Vec<_>>().join(".")
    }
}

/// The text without what separates the parts of a line of statsd: `:`, `|` and control characters
/// become `_`, and so do the dots of IPv4 addresses. Other dots stay.
fn sanitised(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let address = ipv4_length(rest);
        let (taken, left) = rest.split_at(address.unwrap_or(c.len_utf8()));
        let separates = |c: char| matches!(c, ':' | '|') || c.is_control();
        let replaced = |c: char| separates(c) || c == '.' && address.is_some();
        clean.extend(taken.chars().map(|c| if replaced(c) { '_' } else { c }));
        rest = left;
    }
    clean
}

/// The bytes of `text` that look like an IPv4 address at its beginning: four numbers of one to
/// three digits.
fn ipv4_length(text: &str) -> Option<usize> {
    let mut length = 0;
    for part in 0..4 {
        let dot = usize::from(part > 0);
        let number = text.get(length..)?;
        let number = if part > 0 { number.strip_prefix('.')? } else { number };
        let digits = number.bytes().take(3).take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            return None;
        }
        length += dot + digits;
    }
    Some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_of_statsd_and_dots_of_addresses_are_replaced() {
        for (text, expected) in [
            ("masked_remote_address_0.0.0.0/0", "masked_remote_address_0_0_0_0/0"),
            (
                "masked_remote_address_invert:192.0.2.0/24",
                "masked_remote_address_invert_192_0_2_0/24",
            ),
            ("api.shop.example", "api.shop.example"),
            ("v1.2.3", "v1.2.3"),
            ("a|b:c", "a_b_c"),
            ("1.2.3.4.5.6.7.8", "1_2_3_4.5_6_7_8"),
            ("2001:db8::1", "2001_db8__1"),
            ("line\nbreak", "line_break"),
            ("größe.1.1.1.1", "größe.1_1_1_1"),
            ("10.0.0.", "10.0.0."),
        ] {
            assert_eq!(sanitised(text), expected);
        }
    }

    #[test]
    fn key_has_the_whole_path() {
        let nodes = ["shop/limits/rule/1_shop/limits/rule/1", "remote_address_10.0.0.0/8"];
        let key = MetricKey::new("shop/limits", nodes.map(str::to_owned));
        let expected =
            "shop/limits.shop/limits/rule/1_shop/limits/rule/1.remote_address_10_0_0_0/8";
        assert_eq!(key.dotted(), expected);
    }
}
