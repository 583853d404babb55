//! Settings files: YAML as a format of the `config` crate, each value with its line and column.
//!
//! Scalars keep their kind only as far as text cannot carry it (null). Which keys exist is not known here.

use std::error::Error;
use std::fmt;

use config::{Format, Map, Value, ValueKind};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// YAML text from the file of that name.
#[derive(Clone, Debug)]
pub(super) struct Yaml {
    /// The file, as values name their origin.
    pub(super) file: String,
}

impl Format for Yaml {
    fn parse(
        &self,
        _uri: Option<&String>,
        text: &str,
    ) -> Result<Map<String, Value>, Box<dyn Error + Send + Sync>> {
        let options = serde_saphyr::options! {
            strict_booleans: true,
            underscored_numbers_as_strings: true,
            leading_zero_numbers_as_strings: true,
        };
        let root: Option<Spanned<Node>> = serde_saphyr::from_str_with_options(text, options)
            // A snippet would show neighbouring lines, which may hold a secret.
            .map_err(|error| error.without_snippet().to_string())?;
        match root.map(|root| self.value(root).kind) {
            Some(ValueKind::Table(table)) => Ok(table),
            Some(ValueKind::Nil) | None => Ok(Map::new()),
            Some(_) => Err("expected a mapping of settings".into()),
        }
    }
}

impl Yaml {
    /// The value with its place as origin.
    fn value(&self, node: Spanned<Node>) -> Value {
        let (line, column) = (node.referenced.line(), node.referenced.column());
        let kind = match node.value {
            Node::Null => ValueKind::Nil,
            Node::Scalar(text) => ValueKind::String(text),
            Node::List => ValueKind::Array(Vec::new()),
            Node::Mapping(pairs) => {
                let pairs = pairs.into_iter().map(|(key, node)| (key, self.value(node)));
                ValueKind::Table(pairs.collect())
            }
        };
        Value::new(Some(&format!("{}:{line}:{column}", self.file)), kind)
    }
}

/// A YAML node of any kind.
enum Node {
    Null,
    Scalar(String),
    /// No setting is a list, so what is in it does not matter.
    List,
    Mapping(Vec<(String, Spanned<Self>)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyNode)
    }
}

struct AnyNode;

impl<'de> Visitor<'de> for AnyNode {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a setting or a mapping of settings")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        while items.next_element::<serde::de::IgnoredAny>()?.is_some() {}
        Ok(Node::List)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<Node, A::Error> {
        let mut mapping = Vec::new();
        while let Some(pair) = pairs.next_entry()? {
            mapping.push(pair);
        }
        Ok(Node::Mapping(mapping))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Map<String, Value>, String> {
        let yaml = Yaml { file: "a.yaml".to_owned() };
        yaml.parse(None, text).map_err(|error| error.to_string())
    }

    #[test]
    fn scalars_keep_their_text_and_their_place() {
        let text = "a: off\nb: 1_000\nc: 010\nd: \"5\"\ne: ~\nf: TRUE\ng: -3\nh: 10ms\ni: 1.5\n";
        let table = parse(text).unwrap();
        for (key, text, place) in [
            ("a", "off", "a.yaml:1:4"),
            ("b", "1_000", "a.yaml:2:4"),
            ("c", "010", "a.yaml:3:4"),
            ("d", "5", "a.yaml:4:4"),
            ("f", "true", "a.yaml:6:4"),
            ("g", "-3", "a.yaml:7:4"),
            ("h", "10ms", "a.yaml:8:4"),
            ("i", "1.5", "a.yaml:9:4"),
        ] {
            let value = &table[key];
            assert_eq!(value.kind, ValueKind::String(text.to_owned()), "{key}");
            assert_eq!(value.origin(), Some(place));
        }
        assert_eq!(table["e"].kind, ValueKind::Nil);
    }

    #[test]
    fn nested_values_have_their_own_place() {
        let table = parse("grpc:\n  listen: x\n  list: [1, {a: 2}]\n").unwrap();
        let grpc = table["grpc"].clone().into_table().unwrap();
        assert_eq!(grpc["listen"].origin(), Some("a.yaml:2:11"));
        assert_eq!(grpc["list"].kind, ValueKind::Array(Vec::new()));
    }

    #[test]
    fn empty_file_is_no_settings() {
        for text in ["", "# only a comment\n", "---\n", "~"] {
            assert!(parse(text).unwrap().is_empty(), "{text:?}");
        }
    }

    #[test]
    fn broken_files_are_refused_with_a_place_and_without_other_lines() {
        for (text, part) in [
            ("secret: hunter2\na: b: c\n", "line 2"),
            ("secret: hunter2\na: 1\na: 2\n", "line 3"),
            ("- a\n", "expected a mapping"),
            ("text", "expected a mapping"),
            ("a: 1\n---\nb: 2\n", "document"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part), "{text:?} gave {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
