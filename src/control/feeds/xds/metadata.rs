//! `google.protobuf.Struct` as JSON. The decoder bounds its depth at 100 levels.

use prost_types::value::Kind;
use prost_types::{Struct, Value as PbValue};
use serde_json::{Map, Value, json};

/// The fields as a JSON object, in the order of their names.
pub(super) fn to_object(fields: &Struct) -> Map<String, Value> {
    fields.fields.iter().map(|(key, value)| (key.clone(), to_value(value))).collect()
}

fn to_value(value: &PbValue) -> Value {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::NumberValue(number)) => whole(*number).unwrap_or_else(|| json!(number)),
        Some(Kind::StringValue(text)) => json!(text),
        Some(Kind::BoolValue(flag)) => json!(flag),
        Some(Kind::StructValue(fields)) => Value::Object(to_object(fields)),
        Some(Kind::ListValue(list)) => list.values.iter().map(to_value).collect(),
    }
}

/// A number without a fraction, as a policy file has it: 3 and not 3.0.
fn whole(number: f64) -> Option<Value> {
    let exact = number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0;
    exact.then(|| json!(number as i64))
}

/// The levels of objects and lists.
pub(super) fn levels(value: &Value) -> usize {
    match value {
        Value::Object(object) => 1 + object.values().map(levels).max().unwrap_or(0),
        Value::Array(items) => 1 + items.iter().map(levels).max().unwrap_or(0),
        _ => 0,
    }
}
