//! A YAML document as a tree of nodes, each knowing its place and, of a scalar, its text as
//! written.
//!
//! The meaning of a scalar depends on the reader: `value: 1.10` is the text "1.10", `burst: 1.10` a
//! fault, and in metadata it is a number. So nothing is resolved until a reader asks.

use std::sync::Arc;

use serde_json::{Map, Number, Value};

use super::note::{At, quote};

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) at: At,
    pub(crate) data: Data,
}

#[derive(Clone, Debug)]
pub(crate) enum Data {
    /// `plain`: neither quoted nor tagged as text.
    Scalar {
        text: Arc<str>,
        plain: bool,
    },
    List(Vec<Node>),
    /// In file order, keys unique.
    Map(Vec<Entry>),
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: Arc<str>,
    pub(crate) key_at: At,
    pub(crate) value: Node,
}

impl Node {
    /// True if the node stands for nothing: empty, `~` or `null`, unquoted.
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.data, Data::Scalar { text, plain: true }
            if matches!(&**text, "" | "~" | "null" | "Null" | "NULL"))
    }

    /// The text of a scalar as written.
    pub(crate) fn text(&self) -> Option<&Arc<str>> {
        match &self.data {
            Data::Scalar { text, .. } => Some(text),
            Data::List(_) | Data::Map(_) => None,
        }
    }

    /// The text of an unquoted scalar.
    pub(crate) fn plain(&self) -> Option<&str> {
        match &self.data {
            Data::Scalar { text, plain: true } => Some(text),
            _ => None,
        }
    }

    /// The truth of an unquoted `true`, `yes` or `on`, or their opposites.
    pub(crate) fn flag(&self) -> Option<bool> {
        let word = self.plain()?.to_ascii_lowercase();
        match &*word {
            "true" | "yes" | "on" => Some(true),
            "false" | "no" | "off" => Some(false),
            _ => None,
        }
    }

    /// The value of an unquoted whole number: decimal, or with `0x`, `0o` or `0b`; underscores may
    /// part digits. A leading zero is refused: it is octal to some readers of YAML and decimal to
    /// others.
    pub(crate) fn whole(&self) -> Option<u64> {
        let text = self.plain()?;
        let (radix, digits) = match text.get(..2) {
            Some("0x") => (16, text.get(2..)?),
            Some("0o") => (8, text.get(2..)?),
            Some("0b") => (2, text.get(2..)?),
            _ => (10, text),
        };
        let digits = digits.replace('_', "");
        let ambiguous = radix == 10 && digits.len() > 1 && digits.starts_with('0');
        let clean = !ambiguous && digits.chars().all(|c| c.is_digit(radix));
        clean.then(|| u64::from_str_radix(&digits, radix).ok()).flatten()
    }

    /// The node for a message: a kind, or the value as written.
    pub(crate) fn describe(&self) -> String {
        match &self.data {
            Data::List(_) => "a list".to_owned(),
            Data::Map(_) => "a mapping".to_owned(),
            Data::Scalar { .. } if self.is_null() => "nothing".to_owned(),
            Data::Scalar { text, .. } => quote(text),
        }
    }

    /// The node as JSON, by the core schema of YAML 1.2; what has no form in JSON, such as `.inf`,
    /// stays text.
    pub(crate) fn to_json(&self) -> Value {
        match &self.data {
            Data::List(items) => Value::Array(items.iter().map(Self::to_json).collect()),
            Data::Map(entries) => Value::Object(to_object(entries)),
            Data::Scalar { .. } if self.is_null() => Value::Null,
            Data::Scalar { text, plain: false } => Value::String(text.to_string()),
            Data::Scalar { text, plain: true } => match &**text {
                "true" | "True" | "TRUE" => Value::Bool(true),
                "false" | "False" | "FALSE" => Value::Bool(false),
                text => number(text).map_or_else(|| Value::String(text.to_owned()), Value::Number),
            },
        }
    }
}

impl Node {
    /// A list or mapping that lies more than `levels` levels deep, this one counted.
    pub(crate) fn below(&self, levels: usize) -> Option<&Self> {
        match &self.data {
            Data::Scalar { .. } => None,
            _ if levels == 0 => Some(self),
            Data::List(items) => items.iter().find_map(|item| item.below(levels - 1)),
            Data::Map(entries) => entries.iter().find_map(|entry| entry.value.below(levels - 1)),
        }
    }
}

/// A mapping as a JSON object.
pub(crate) fn to_object(entries: &[Entry]) -> Map<String, Value> {
    entries.iter().map(|entry| (entry.key.to_string(), entry.value.to_json())).collect()
}

fn number(text: &str) -> Option<Number> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let whole =
        text.parse::<i64>().map(Number::from).or_else(|_| text.parse::<u64>().map(Number::from));
    whole.ok().or_else(|| text.parse().ok().and_then(Number::from_f64))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn scalar(text: &str, plain: bool) -> Node {
        Node { at: At::default(), data: Data::Scalar { text: text.into(), plain } }
    }

    #[test]
    fn whole_numbers_are_read_exactly_or_not_at_all() {
        for (text, number) in [
            ("0", Some(0)),
            ("4294967296", Some(1 << 32)),
            ("1_000", Some(1_000)),
            ("0x1F", Some(31)),
            ("0o17", Some(15)),
            ("0b101", Some(5)),
            ("010", None),
            ("-1", None),
            ("+1", None),
            ("1.0", None),
            ("1e3", None),
            ("", None),
            ("0x", None),
            ("18446744073709551616", None),
        ] {
            assert_eq!(scalar(text, true).whole(), number, "{text}");
            assert_eq!(scalar(text, false).whole(), None, "{text}");
        }
    }

    #[test]
    fn metadata_scalars_follow_the_core_schema() {
        for (text, value) in [
            ("1", json!(1)),
            ("-1", json!(-1)),
            ("1.50", json!(1.5)),
            ("1e3", json!(1_000.0)),
            ("18446744073709551615", json!(u64::MAX)),
            ("true", json!(true)),
            ("no", json!("no")),
            ("~", json!(null)),
            ("", json!(null)),
            ("inf", json!("inf")),
            (".inf", json!(".inf")),
            ("1.2.3", json!("1.2.3")),
        ] {
            assert_eq!(scalar(text, true).to_json(), value, "{text}");
            assert_eq!(scalar(text, false).to_json(), json!(text), "{text}");
        }
    }
}
