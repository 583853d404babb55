//! The size of the README, the width of lines, and the openings of comments.

use std::fs;

use crate::layout::rust_files;
use crate::markdown::{page, pages};

/// A README that is read to its end.
const MAX_README_BYTES: usize = 9 * 1024;
const MAX_COLUMNS: usize = 100;

#[test]
fn readme_is_short() {
    let bytes = page("README.md").text.len();
    assert!(bytes <= MAX_README_BYTES, "README.md has {bytes} bytes; the rest belongs into docs/");
}

#[test]
fn lines_but_rows_of_tables_are_narrow() {
    for page in pages() {
        for (number, line, _) in page.lines().filter(|(_, line, _)| !line.starts_with('|')) {
            let columns = line.chars().count();
            assert!(columns <= MAX_COLUMNS, "{}:{number} has {columns} columns", page.path);
        }
    }
}

/// Rows of tables may be wider: they cannot be wrapped.
#[test]
fn comments_are_narrow() {
    for file in rust_files() {
        let text = fs::read_to_string(&file).unwrap();
        for (i, line) in text.lines().enumerate() {
            let comment = line.trim_start().strip_prefix("//");
            let is_row = |text: &str| text.trim_start_matches(['/', '!', ' ']).starts_with('|');
            let wide = line.chars().count() > MAX_COLUMNS;
            let wide = wide && comment.is_some_and(|text| !is_row(text));
            assert!(!wide, "{}:{} is wider than {MAX_COLUMNS} columns", file.display(), i + 1);
        }
    }
}

/// A noun or a verb says what a thing is; a question leaves it to the reader.
#[test]
fn doc_comments_open_with_a_noun_or_a_verb() {
    const QUESTIONS: [&str; 7] = ["What", "Whether", "Where", "Who", "How", "Why", "Which"];
    let (mut openings, mut questions) = (0, Vec::new());
    for file in rust_files() {
        let text = fs::read_to_string(&file).unwrap();
        let mut before = "";
        for line in text.lines().map(str::trim_start) {
            let doc = |line: &str| line.starts_with("///") || line.starts_with("//!");
            if doc(line) && !doc(before) {
                openings += 1;
                let first = line.get(3..).and_then(|text| text.split_whitespace().next());
                if first.is_some_and(|word| QUESTIONS.contains(&word)) {
                    questions.push(format!("{}: {line}", file.display()));
                }
            }
            before = line;
        }
    }
    assert!(openings > 1_000, "the comments were not found");
    assert!(questions.len() * 100 <= openings, "{}", questions.join("\n"));
}
