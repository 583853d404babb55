//! The README as blocks, tables, links and words in backticks. Knows only as much Markdown as the README uses.
//!
//! | comment | before | means |
//! |---|---|---|
//! | `test: example` | sh | run against the built-in example |
//! | `test: redis` | sh | run against the policies of the demo, counting in Redis, with its token |
//! | `test: files` | sh | run beside the files of the README |
//! | `test: file NAME` | yaml | such a file |
//! | `test: policy`, `test: settings`, `test: envoy` | yaml | what it is, and checked as that |
//! | `keys: KIND`, `settings`, `metrics` | table | what it lists, completely |
//!
//! What an sh block prints stands in the next block, if that is text or json. One that begins with `export` prints nothing.

use std::fs;
use std::path::{Path, PathBuf};

/// The directory of the README.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

pub fn text() -> String {
    fs::read_to_string(root().join("README.md")).unwrap()
}

/// A fenced block.
#[derive(Debug, Default)]
pub struct Block {
    pub language: String,
    pub text: String,
    /// The line of its fence, from 1.
    pub line: usize,
    /// What follows `test:` in the comment before it.
    pub mark: Option<String>,
}

/// All blocks in their order.
pub fn blocks() -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    let mut before = None;
    for (line, number) in text().lines().zip(1..) {
        if let Some(block) = &mut open {
            if line == "```" {
                blocks.extend(open.take());
            } else {
                block.text.push_str(line);
                block.text.push('\n');
            }
        } else if let Some(language) = line.strip_prefix("```") {
            let (language, mark) = (language.to_owned(), before.take());
            open = Some(Block { language, line: number, mark, ..Block::default() });
        } else {
            before = comment(line).and_then(|c| c.strip_prefix("test: ")).map(ToOwned::to_owned);
        }
    }
    assert!(open.is_none(), "a block without an end");
    blocks
}

fn comment(line: &str) -> Option<&str> {
    line.strip_prefix("<!-- ")?.strip_suffix(" -->")
}

/// The rows, without their head, of the table after this comment; by cells.
pub fn table(mark: &str) -> Vec<Vec<String>> {
    let text = text();
    let after = text.lines().skip_while(|line| comment(line) != Some(mark)).skip(1);
    let rows: Vec<_> = after.take_while(|line| line.starts_with('|')).skip(2).collect();
    assert!(!rows.is_empty(), "no table after {mark:?}");
    rows.into_iter().map(cells).collect()
}

fn cells(row: &str) -> Vec<String> {
    row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
}

/// The text outside of blocks.
pub fn prose() -> String {
    let mut inside = false;
    let text = text();
    let lines = text.lines().filter(|line| {
        let fence = line.starts_with("```");
        inside ^= fence;
        !inside && !fence
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Where links lead.
pub fn links() -> Vec<String> {
    let prose = prose();
    let after = prose.split("](").skip(1);
    after.map(|rest| rest.split_once(')').unwrap().0.to_owned()).collect()
}

/// What is in backticks, outside of blocks.
pub fn code_spans() -> Vec<String> {
    prose().lines().flat_map(|line| odd(line, '`')).collect()
}

fn odd(line: &str, mark: char) -> Vec<String> {
    line.split(mark).skip(1).step_by(2).map(ToOwned::to_owned).collect()
}

/// The anchors of the headings.
pub fn anchors() -> Vec<String> {
    let prose = prose();
    let titles = prose.lines().filter(|line| line.starts_with('#'));
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-');
    titles
        .map(|title| title.trim_start_matches('#').trim().to_lowercase())
        .map(|title| title.chars().filter(kept).collect::<String>().replace(' ', "-"))
        .collect()
}
