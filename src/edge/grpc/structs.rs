//! An encoder of `google.protobuf.Struct` that writes bytes directly, without building the message.
//!
//! Source: google/protobuf/struct.proto for the field numbers, the protobuf encoding guide for the
//! rest.

use std::fmt;

use prost::encoding::encoded_len_varint;
use serde_json::{Map, Value as Json};

use super::wire::{close, content, nested, varint};
use crate::telemetry::escape::PlainWrite;

/// Tag of field 1 of `Struct`, of a map entry, and of `ListValue`: length-delimited.
const FIRST: u8 = 0x0a;
/// Tag of field 2 of a map entry: the value.
const ENTRY_VALUE: u8 = 0x12;

const NULL_VALUE: [u8; 2] = [0x08, 0];
const NUMBER_VALUE: u8 = 0x11;
const STRING_VALUE: u8 = 0x1a;
const BOOL_VALUE: u8 = 0x20;
const STRUCT_VALUE: u8 = 0x2a;
const LIST_VALUE: u8 = 0x32;

/// The beginning of a field, up to the value: its name, and bytes for the lengths of the field and
/// of the value. `N` is the length of the name and 6.
#[expect(clippy::indexing_slicing, reason = "computed by the compiler, which would see a panic")]
pub(super) const fn head<const N: usize>(name: &str) -> [u8; N] {
    let name = name.as_bytes();
    assert!(name.len() + 6 == N && name.len() < 0x80);
    let mut head = [0; N];
    (head[0], head[2], head[3]) = (FIRST, FIRST, name.len() as u8);
    let mut at = 0;
    while at < name.len() {
        head[at + 4] = name[at];
        at += 1;
    }
    head[N - 2] = ENTRY_VALUE;
    head
}

/// An encoder of a `Struct`. Each field may be written once.
pub(super) struct Fields<'a>(pub(super) &'a mut Vec<u8>);

/// An encoder of one `Value`, to be used exactly once.
pub(super) struct ValueWriter<'a>(&'a mut Vec<u8>);

/// An encoder of a `ListValue`.
pub(super) struct List<'a>(&'a mut Vec<u8>);

impl Fields<'_> {
    /// Adds the field of this [`head`]; `write` writes its value.
    #[inline]
    pub(super) fn known(&mut self, head: &'static [u8], write: impl FnOnce(ValueWriter<'_>)) {
        let field = self.0.len() + 2;
        self.0.extend_from_slice(head);
        let value = self.0.len();
        write(ValueWriter(self.0));
        close(self.0, value);
        close(self.0, field);
    }

    /// Adds the field `name`; `write` writes its value.
    fn field(&mut self, name: &str, write: impl FnOnce(ValueWriter<'_>)) {
        nested(self.0, FIRST, |entry| {
            content(entry, FIRST, name.as_bytes());
            nested(entry, ENTRY_VALUE, |value| write(ValueWriter(value)));
        });
    }
}

impl ValueWriter<'_> {
    /// Text as it is.
    pub(super) fn str(self, text: &str) {
        content(self.0, STRING_VALUE, text.as_bytes());
    }

    /// Text that `write` appends, which is UTF-8.
    pub(super) fn text(self, write: impl FnOnce(&mut Text<'_>) -> fmt::Result) {
        nested(self.0, STRING_VALUE, |bytes| {
            // Writing to memory cannot fail.
            let _ = write(&mut Text(bytes));
        });
    }

    pub(super) fn number(self, number: f64) {
        self.0.push(NUMBER_VALUE);
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    pub(super) fn bool(self, value: bool) {
        self.0.extend_from_slice(&[BOOL_VALUE, value.into()]);
    }

    pub(super) fn list(self, write: impl FnOnce(&mut List<'_>)) {
        nested(self.0, LIST_VALUE, |bytes| write(&mut List(bytes)));
    }

    pub(super) fn fields(self, write: impl FnOnce(&mut Fields<'_>)) {
        nested(self.0, STRUCT_VALUE, |bytes| write(&mut Fields(bytes)));
    }

    fn json(self, value: &Json) {
        match value {
            Json::Null => self.0.extend_from_slice(&NULL_VALUE),
            Json::Bool(value) => self.bool(*value),
            Json::Number(number) => self.number(number.as_f64().unwrap_or(f64::MAX)),
            Json::String(text) => self.str(text),
            Json::Array(values) => {
                self.list(|list| values.iter().for_each(|value| list.value(|at| at.json(value))));
            }
            Json::Object(map) => self.map(map),
        }
    }

    pub(super) fn map(self, map: &Map<String, Json>) {
        self.fields(|fields| {
            map.iter().for_each(|(name, value)| fields.field(name, |at| at.json(value)));
        });
    }
}

impl List<'_> {
    /// Adds text that consists of these parts, which are UTF-8.
    pub(super) fn text_of(&mut self, parts: &[&[u8]]) {
        let length = parts.iter().map(|part| part.len()).sum::<usize>() as u64;
        self.0.push(FIRST);
        varint(self.0, 1 + encoded_len_varint(length) as u64 + length);
        self.0.push(STRING_VALUE);
        varint(self.0, length);
        for part in parts {
            self.0.extend_from_slice(part);
        }
    }

    /// Adds a value; `write` writes it.
    pub(super) fn value(&mut self, write: impl FnOnce(ValueWriter<'_>)) {
        nested(self.0, FIRST, |value| write(ValueWriter(value)));
    }
}

/// Appends formatted text to bytes.
pub(super) struct Text<'a>(pub(super) &'a mut Vec<u8>);

impl PlainWrite for Text<'_> {
    fn write_plain(&mut self, plain: &[u8]) -> fmt::Result {
        self.0.extend_from_slice(plain);
        Ok(())
    }
}

impl fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use prost_types::Struct;
    use serde_json::json;

    use super::*;
    use crate::edge::http::json::from_struct;

    #[test]
    fn any_json_is_read_back_by_prost() {
        const VALUE: &[u8] = &head::<11>("value");
        for length in [0, 1, 100, 119, 120, 121, 127, 128, 129, 20_000] {
            let long = "x".repeat(length);
            let value = json!({
                "": "", "null": null, "yes": true, "no": false, "number": -1.5, "long": long,
                "list": [1.0, "two", [], {}, [[long]], {"deep": {"deeper": [long, long]}}],
            });
            let mut bytes = Vec::new();
            Fields(&mut bytes).known(VALUE, |at| at.json(&value));
            let read = Struct::decode(bytes.as_slice()).unwrap();
            assert_eq!(from_struct(&read), json!({ "value": value }), "{length}");
        }
    }
}
