//! What YAML comes in and which nodes come out; and that no text brings it down.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// The node and the number of warnings, or the faults.
fn read(text: &[u8]) -> Result<(Node, usize), Vec<Note>> {
    let mut notes = Notes::default();
    let node = parse(0, text, &mut notes);
    if !notes.faults.is_empty() {
        return Err(notes.faults);
    }
    Ok((node.expect("what has no fault has a node"), notes.warnings.len()))
}

fn json_of(text: &str) -> Value {
    read(text.as_bytes()).unwrap_or_else(|faults| panic!("{faults:?}")).0.to_json()
}

fn fault_of(text: &str) -> String {
    shown(&read(text.as_bytes()).unwrap_err())
}

/// The first of the faults in the text.
fn shown(faults: &[Note]) -> String {
    let first = faults.iter().min_by_key(|note| note.at).unwrap();
    format!("{}:{} {}", first.at.line, first.at.column, first.message)
}

fn entry<'n>(node: &'n Node, key: &str) -> &'n Entry {
    let Data::Map(entries) = &node.data else { panic!("not a mapping") };
    entries.iter().find(|entry| &*entry.key == key).unwrap()
}

#[test]
fn scalars_keep_their_text_and_place() {
    let (node, _) = read(b"a: 1.10\n42: 0x1F\n\"q\": 'true'\nempty:\n").unwrap();
    let text = |key| entry(&node, key).value.text().unwrap().to_string();
    assert_eq!([text("a"), text("42"), text("q")], ["1.10", "0x1F", "true"]);
    assert!(entry(&node, "empty").value.is_null());
    let at = |key| (entry(&node, key).key_at, entry(&node, key).value.at);
    let place = |line, column| At { file: 0, line, column };
    assert_eq!(at("a"), (place(1, 1), place(1, 4)));
    assert_eq!(at("42"), (place(2, 1), place(2, 5)));
    assert_eq!(at("q"), (place(3, 1), place(3, 6)));
}

#[test]
fn quoted_and_tagged_text_has_no_other_meaning() {
    assert_eq!(json_of("[1, '1', !!str 1, !!int 1, \"~\", ~]"), json!([1, "1", "1", 1, "~", null]));
}

#[test]
fn aliases_stand_for_their_anchors() {
    assert_eq!(
        json_of("a: &x {k: [1, 2]}\nb: *x\nc: [*x]\n"),
        json!({"a": {"k": [1, 2]}, "b": {"k": [1, 2]}, "c": [{"k": [1, 2]}]})
    );
}

#[test]
fn merged_mappings_give_way_to_what_is_written() {
    assert_eq!(
        json_of(
            "x: &x {a: 1, b: 1}\ny: &y {b: 2, c: 2}\nz: {<<: [*x, *y], c: 3}\nw: {<<: *x, b: 4}\n"
        ),
        json!({"x": {"a": 1, "b": 1}, "y": {"b": 2, "c": 2}, "z": {"c": 3, "a": 1, "b": 1},
               "w": {"b": 4, "a": 1}})
    );
    assert_eq!(fault_of("a: {<<: 1}"), "1:5 `<<` merges mappings and lists of mappings only");
}

#[test]
fn files_without_content_are_nothing() {
    for text in ["", "# only a comment\n", "---\n", "\u{feff}", "---\n...\n"] {
        assert_eq!(json_of(text), Value::Null, "{text:?}");
    }
}

#[test]
fn byte_order_mark_and_crlf_are_harmless() {
    assert_eq!(json_of("\u{feff}a: 1\r\nb: 2\r\n"), json!({"a": 1, "b": 2}));
    assert_eq!(fault_of("\u{feff}a: 1\r\na: 2\r\n"), "2:1 duplicate key \"a\"");
}

#[test]
fn second_document_is_a_warning() {
    let (node, warnings) = read(b"---\na: 1\n---\na: [\n").unwrap();
    assert_eq!((node.to_json(), warnings), (json!({"a": 1}), 1));
}

#[test]
fn duplicate_and_complex_keys_are_faults() {
    assert_eq!(fault_of("a: 1\nb: {c: 1, 'c': 2}\n"), "2:11 duplicate key \"c\"");
    assert_eq!(fault_of("? [a, b]\n: 1\n"), "1:3 a key must be text, found a list");
}

#[test]
fn alias_within_its_anchor_is_a_fault() {
    assert!(fault_of("a: &x [*x]\n").starts_with("1:8 the alias stands within"));
}

#[test]
fn alias_bomb_is_a_fault() {
    let level = |i| match i {
        0 => format!("a0: &a0 [{}]\n", ["x"; 10].join(", ")),
        i => format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 10].join(", ")),
    };
    let text = (0..12).map(level).collect::<Vec<_>>().concat();
    assert!(fault_of(&text).ends_with("the aliases stand for more than 1000000 nodes"));
}

#[test]
fn deep_nesting_is_a_fault_however_it_is_made() {
    let flow = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let block = "- ".repeat(10_000);
    let mapped: Vec<_> = (0..1_000).map(|i| format!("{}a:\n", " ".repeat(i))).collect();
    let level = |i| match i {
        0 => "a0: &a0 [x]\n".to_owned(),
        i => format!("a{i}: &a{i} [*a{}]\n", i - 1),
    };
    let aliased: Vec<_> = (0..1_000).map(level).collect();
    let (mapped, aliased) = (mapped.concat(), aliased.concat());
    for text in [block, mapped, aliased] {
        let fault = fault_of(&text);
        assert!(fault.contains("nested more than 128 levels deep"), "{fault}");
    }
    // The crate's scanner reads ahead here and stops first, by a bound of its own.
    assert!(fault_of(&flow).ends_with("recursion limit exceeded"));
}

#[test]
fn bytes_that_are_not_utf8_are_a_fault_in_their_place() {
    let faults = read(b"a: 1\nb: \"\xc3\xa9\xff\"\n").unwrap_err();
    assert_eq!(shown(&faults), "2:6 not valid UTF-8");
    for (text, place) in
        [(&b"a: 1\r\xff"[..], "2:1"), (b"a\r\nb\xff", "2:2"), (b"\xef\xbb\xbf\xff", "1:1")]
    {
        let faults = read(text).unwrap_err();
        assert_eq!(shown(&faults), format!("{place} not valid UTF-8"), "{}", text.escape_ascii());
    }
}

#[test]
fn unquoted_star_gets_advice() {
    for text in ["value: *\n", "value: *.example.com\n"] {
        let faults = read(text.as_bytes()).unwrap_err();
        let hint = faults[0].hint.as_deref().unwrap_or_default();
        assert!(hint.contains("quotes around a value that begins with \"*\""), "{faults:?}");
    }
}

#[test]
fn unknown_tag_is_a_fault() {
    assert_eq!(fault_of("a: !secret b\n"), "1:12 unknown tag \"!secret\"");
    assert_eq!(fault_of("!thing {a: b}\n"), "1:8 unknown tag \"!thing\"");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Faults or a node, never a panic, whatever the text.
    #[test]
    fn any_text_is_read_or_refused(text in "([a-z0-9 \\-:?,&*!|>'\"%@`\\[\\]{}#~<\t\n\r.é\u{feff}]|\n  |- |: |<<: |--- |&a |\\*a ){0,60}") {
        match read(text.as_bytes()) {
            Ok((node, _)) => drop(node.to_json()),
            Err(faults) => prop_assert!(!shown(&faults).is_empty()),
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Err(faults) = read(&bytes) {
            prop_assert!(faults[0].at.line >= 1);
        }
    }
}
