//! README.md and the pages of docs/ as blocks, tables, links and code spans. Reads as much Markdown as they use.
//!
//! Comments, invisible in the rendered page, say what the next block or table is:
//!
//! | comment | before | means |
//! |---|---|---|
//! | `test: example` | sh | runs against the built-in example |
//! | `test: redis` | sh | runs against the policies of the demo, with Redis and the demo's token |
//! | `test: tls` | sh | runs beside the certificates that its page makes, against its first settings |
//! | `test: files` | sh | runs beside the files of its page |
//! | `test: succeeds` | sh | runs against the built-in example; its output differs from run to run |
//! | `test: file NAME` | any | such a file |
//! | `test: policy`, `test: settings`, `test: envoy`, `test: kubernetes` | yaml | checked as that |
//! | `keys: KIND`, `settings`, `bounds`, `metrics` | table | what the code declares, completely |
//! | `also in: PAGE` | table | each row is in that page too |
//!
//! The output of an sh block is in the next block, if that is text or json. A block that begins with `export` has none.
//! The blocks of a page run in their order against one tollgate.

use std::fs;
use std::path::{Path, PathBuf};

/// The root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// A file of Markdown.
#[derive(Debug)]
pub struct Page {
    /// The path from the root of the repository.
    pub path: String,
    pub text: String,
}

/// README.md, then docs/**/*.md by path.
pub fn pages() -> Vec<Page> {
    let mut paths = Vec::new();
    find(&root().join("docs"), &mut paths);
    paths.sort();
    paths.insert(0, root().join("README.md"));
    paths.into_iter().map(|path| page(path.strip_prefix(root()).unwrap())).collect()
}

/// The page of that path from the root.
pub fn page(path: impl AsRef<Path>) -> Page {
    let path = path.as_ref();
    let text = fs::read_to_string(root().join(path));
    let text = text.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Page { path: path.to_str().unwrap().to_owned(), text }
}

fn find(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            find(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

/// A fenced block.
#[derive(Debug, Default)]
pub struct Block {
    pub language: String,
    pub text: String,
    /// `FILE:LINE` of its fence.
    pub place: String,
    /// The text after `test:` in the comment before it.
    pub mark: Option<String>,
}

impl Page {
    /// All blocks in their order.
    pub fn blocks(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut open: Option<Block> = None;
        let mut mark = None;
        for (line, number) in self.text.lines().zip(1..) {
            if let Some(block) = &mut open {
                if line == "```" {
                    blocks.extend(open.take());
                } else {
                    block.text.push_str(line);
                    block.text.push('\n');
                }
            } else if let Some(language) = line.strip_prefix("```") {
                let (language, place) = (language.to_owned(), format!("{}:{number}", self.path));
                open = Some(Block { language, place, mark: mark.take(), ..Block::default() });
            } else {
                mark = comment(line).and_then(|c| c.strip_prefix("test: ")).map(ToOwned::to_owned);
            }
        }
        assert!(open.is_none(), "{}: a block without an end", self.path);
        blocks
    }

    /// The blocks with this mark.
    pub fn marked(&self, mark: &str) -> Vec<Block> {
        let blocks = self.blocks().into_iter();
        blocks.filter(|block| block.mark.as_deref() == Some(mark)).collect()
    }

    /// Each line with its number and whether it belongs to a fenced block.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &str, bool)> {
        let mut inside = false;
        self.text.lines().zip(1..).map(move |(line, number)| {
            let fence = line.starts_with("```");
            inside ^= fence;
            (number, line, inside || fence)
        })
    }

    /// The text outside of blocks.
    pub fn prose(&self) -> String {
        let lines = self.lines().filter(|(_, _, code)| !code).map(|(_, line, _)| line);
        lines.collect::<Vec<_>>().join("\n")
    }

    /// The targets of links.
    pub fn links(&self) -> Vec<String> {
        let prose = self.prose();
        let after = prose.split("](").skip(1);
        after.map(|rest| rest.split_once(')').unwrap().0.to_owned()).collect()
    }

    /// The text in backticks, outside of blocks.
    pub fn code_spans(&self) -> Vec<String> {
        let prose = self.prose();
        let paragraphs = prose.split("\n\n").map(|lines| lines.replace('\n', " "));
        let odd = |text: String| -> Vec<String> {
            text.split('`').skip(1).step_by(2).map(ToOwned::to_owned).collect()
        };
        paragraphs.flat_map(odd).collect()
    }

    /// The anchors of the headings, as GitHub and mdBook make them.
    pub fn anchors(&self) -> Vec<String> {
        let prose = self.prose();
        let titles = prose.lines().filter(|line| line.starts_with('#'));
        let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
        titles
            .map(|title| title.trim_start_matches('#').trim().to_lowercase())
            .map(|title| title.chars().filter(kept).collect::<String>().replace(' ', "-"))
            .collect()
    }

    /// The rows, without their head, of each table after a comment that begins with `mark`; with the rest of it.
    pub fn tables_after(&self, mark: &str) -> Vec<(String, Vec<&str>)> {
        let lines: Vec<_> = self.text.lines().collect();
        let marked = lines.iter().enumerate().filter_map(|(i, line)| {
            let rest = comment(line)?.strip_prefix(mark)?;
            let rows = lines[i + 1..].iter().take_while(|line| line.starts_with('|')).skip(2);
            Some((rest.trim().to_owned(), rows.copied().collect()))
        });
        marked.collect()
    }
}

fn comment(line: &str) -> Option<&str> {
    line.strip_prefix("<!-- ")?.strip_suffix(" -->")
}

/// The rows, without their head, of the one table after this comment; by cells.
pub fn table(mark: &str) -> Vec<Vec<String>> {
    let pages = pages();
    let tables = pages.iter().flat_map(|page| page.tables_after(mark));
    let mut tables: Vec<_> = tables.filter(|(rest, _)| rest.is_empty()).collect();
    assert_eq!(tables.len(), 1, "tables after {mark:?}");
    let (_, rows) = tables.remove(0);
    assert!(!rows.is_empty(), "no table after {mark:?}");
    rows.into_iter().map(cells).collect()
}

fn cells(row: &str) -> Vec<String> {
    row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
}
