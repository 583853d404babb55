//! The size of the README and the width of lines.

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
