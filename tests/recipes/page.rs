//! docs/recipes.md as recipes: a heading of the second level and the blocks below it.
//!
//! | comment before | block | means |
//! |---|---|---|
//! | `test: file policies.yaml` | yaml | the policies of the recipe |
//! | `test: file rate_limits.yaml` | yaml | in place of `rate_limits` in Envoy's rate limit filter |
//! | `test: file http_filter.yaml` | yaml | a filter of Envoy before that one |
//! | `test: file http_filter_after.yaml` | yaml | a filter of Envoy after that one |
//! | `test: file connection_manager.yaml` | yaml | more keys of Envoy's connection manager |
//! | none | bash | runs beside these files; the next block, of text, is its output |
//! | `test: eventually` | bash | as above, and is repeated until its output is that |

use std::fs;
use std::path::Path;

const PAGE: &str = "docs/recipes.md";
const FILES: [&str; 5] = [
    "policies.yaml",
    "rate_limits.yaml",
    "http_filter.yaml",
    "http_filter_after.yaml",
    "connection_manager.yaml",
];

#[derive(Debug)]
pub struct Recipe {
    pub title: String,
    blocks: Vec<Block>,
}

#[derive(Debug, Default)]
struct Block {
    language: String,
    text: String,
    place: String,
    /// The text after `test:` in the comment before it.
    mark: Option<String>,
}

/// A script and its output.
#[derive(Debug)]
pub struct Example<'a> {
    pub place: &'a str,
    pub script: &'a str,
    pub output: &'a str,
    /// The output may take a while to be that.
    pub eventually: bool,
}

/// All recipes in their order.
pub fn recipes() -> Vec<Recipe> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE)).unwrap();
    let (mut recipes, mut open, mut mark) = (Vec::<Recipe>::new(), None::<Block>, None);
    for (line, number) in text.lines().zip(1..) {
        if let Some(block) = &mut open {
            if line == "```" {
                recipes.last_mut().expect("a heading").blocks.extend(open.take());
            } else {
                block.text.push_str(line);
                block.text.push('\n');
            }
        } else if let Some(language) = line.strip_prefix("```") {
            let (language, place) = (language.to_owned(), format!("{PAGE}:{number}"));
            open = Some(Block { language, place, mark: mark.take(), ..Block::default() });
        } else if let Some(title) = line.strip_prefix("## ") {
            recipes.push(Recipe { title: title.to_owned(), blocks: Vec::new() });
        } else {
            let comment = line.strip_prefix("<!-- test: ").and_then(|c| c.strip_suffix(" -->"));
            mark = comment.map(ToOwned::to_owned);
        }
    }
    assert!(open.is_none(), "{PAGE}: a block without an end");
    recipes
}

impl Recipe {
    /// Names and texts of its files.
    pub fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.blocks.iter().filter(|block| block.language == "yaml").map(|block| {
            let name = block.mark.as_deref().and_then(|mark| mark.strip_prefix("file "));
            let name = name.filter(|name| FILES.contains(name));
            (name.unwrap_or_else(|| panic!("{}: which file?", block.place)), &*block.text)
        })
    }

    pub fn file(&self, name: &str) -> Option<&str> {
        self.files().find_map(|(found, text)| (found == name).then_some(text))
    }

    /// Whether a script has this text in it.
    pub fn mentions(&self, text: &str) -> bool {
        self.examples().iter().any(|example| example.script.contains(text))
    }

    /// Its scripts in their order.
    pub fn examples(&self) -> Vec<Example<'_>> {
        let mut blocks = self.blocks.iter().filter(|block| block.language != "yaml");
        let mut examples = Vec::new();
        while let Some(Block { language, text, place, mark }) = blocks.next() {
            assert_eq!(language, "bash", "{place}");
            let output = blocks.next().filter(|next| next.language == "text");
            examples.push(Example {
                place,
                script: text,
                output: &output.unwrap_or_else(|| panic!("{place}: no output")).text,
                eventually: match mark.as_deref() {
                    None => false,
                    Some("eventually") => true,
                    Some(other) => panic!("{place}: unknown mark {other:?}"),
                },
            });
        }
        examples
    }
}
