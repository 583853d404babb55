//! YAML text to nodes. The only file that knows the YAML crate.
//!
//! Only the first document of a file counts. Aliases are replaced by what they name, within a
//! budget; `<<` merges mappings. Nothing here recurses, and no tree is deeper than [`MAX_DEPTH`],
//! so no file can exhaust the stack of this module or of its readers.

use std::borrow::Cow;
use std::sync::Arc;

use hashbrown::HashMap;
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Tag};

use super::node::{Data, Entry, Node};
use super::note::{At, Notes, quote};

/// The deepest nesting of lists and mappings: about sixty levels of descriptors.
const MAX_DEPTH: usize = 128;

/// The most nodes for which all aliases of a file may stand.
const MAX_ALIASED: usize = 1_000_000;

/// Editors put it in front of a text, of which it is no part.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// Said already: reading the file ends here.
struct Stop;

/// The first document of `text`, or nothing and a fault.
pub(crate) fn parse(file: u32, text: &[u8], notes: &mut Notes) -> Option<Node> {
    let text = match std::str::from_utf8(text) {
        Ok(text) => text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text),
        Err(error) => {
            let (valid, _) = text.split_at_checked(error.valid_up_to())?;
            notes.fault(end_of(file, valid), "not valid UTF-8");
            return None;
        }
    };
    let mut builder = Builder { file, notes, open: vec![], anchors: HashMap::new(), aliased: 0 };
    match builder.document(Parser::new_from_str(text)) {
        Ok(Some(node)) => Some(node),
        Ok(None) => {
            let nothing = Data::Scalar { text: "".into(), plain: true };
            Some(Node { at: At { file, line: 1, column: 1 }, data: nothing })
        }
        Err(Stop) => None,
    }
}

/// The lines of a file as places count them: each ends in a line feed, also where the file has
/// another line break of YAML, and a byte order mark is part of none.
pub(crate) fn counted_lines(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&text);
    text.replace("\r\n", "\n").replace('\r', "\n")
}

/// The place right after `text`, which is valid UTF-8.
fn end_of(file: u32, text: &[u8]) -> At {
    let text = counted_lines(text);
    let line = text.matches('\n').count() as u32 + 1;
    let column = text.chars().rev().take_while(|&c| c != '\n').count() as u32 + 1;
    At { file, line, column }
}

/// A node, how many nodes it is made of, and how many levels.
#[derive(Clone)]
struct Built {
    node: Node,
    size: usize,
    height: usize,
}

/// A list or mapping whose end has not come yet.
struct Frame {
    at: At,
    anchor: usize,
    size: usize,
    height: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map(OpenMap),
}

#[derive(Default)]
struct OpenMap {
    entries: Vec<Entry>,
    /// The place at which each key was first written.
    keys: HashMap<Arc<str>, At>,
    /// The key whose value comes next; without text when it was refused.
    key: Option<(Option<Arc<str>>, At)>,
    /// The nodes that `<<` merges.
    merged: Vec<Node>,
}

struct Builder<'n> {
    file: u32,
    notes: &'n mut Notes,
    open: Vec<Frame>,
    /// 0 is no anchor.
    anchors: HashMap<usize, Built>,
    aliased: usize,
}

impl Builder<'_> {
    fn document<'t>(
        &mut self,
        events: impl Iterator<Item = Result<(Event<'t>, saphyr_parser::Span), ScanError>>,
    ) -> Result<Option<Node>, Stop> {
        let mut root = None;
        let mut documents = 0;
        for event in events {
            let (event, span) = match event {
                Ok(event) => event,
                Err(error) => return Err(self.syntax(&error)),
            };
            let at = self.at(span.start);
            if let Event::DocumentStart(_) = event {
                documents += 1;
            }
            if documents > 1 {
                let hint = "move it to a file of its own";
                self.notes.warn(at, "a second document is not read", hint);
                break;
            }
            root = self.event(event, at)?.or(root);
        }
        Ok(root)
    }

    /// Takes an event; the root node when it is complete.
    fn event(&mut self, event: Event<'_>, at: At) -> Result<Option<Node>, Stop> {
        let (built, anchor) = match event {
            Event::Alias(anchor) => (self.alias(anchor, at)?, 0),
            Event::Scalar(text, style, anchor, tag) => {
                let plain = self.is_plain(style, tag.as_deref(), at);
                // The crate spells a null that was left out "~"; with an anchor it leaves it empty.
                let data = Data::Scalar { text: text.into(), plain };
                (Built { node: Node { at, data }, size: 1, height: 0 }, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                self.check_tag(tag, at, "seq");
                self.begin(at, anchor, Content::List(Vec::new()))?;
                return Ok(None);
            }
            Event::MappingStart(anchor, tag) => {
                self.check_tag(tag, at, "map");
                self.begin(at, anchor, Content::Map(OpenMap::default()))?;
                return Ok(None);
            }
            Event::SequenceEnd | Event::MappingEnd => match self.end() {
                Some(closed) => closed,
                None => return Ok(None),
            },
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => return Ok(None),
        };
        if anchor > 0 {
            self.anchors.insert(anchor, built.clone());
        }
        Ok(self.add(built))
    }

    fn begin(&mut self, at: At, anchor: usize, content: Content) -> Result<(), Stop> {
        if self.open.len() >= MAX_DEPTH {
            self.notes.fault(at, format!("nested more than {MAX_DEPTH} levels deep"));
            return Err(Stop);
        }
        self.open.push(Frame { at, anchor, size: 1, height: 1, content });
        Ok(())
    }

    fn end(&mut self) -> Option<(Built, usize)> {
        let Frame { at, anchor, size, height, content } = self.open.pop()?;
        let data = match content {
            Content::List(items) => Data::List(items),
            Content::Map(map) => Data::Map(self.merge(map)),
        };
        Some((Built { node: Node { at, data }, size, height }, anchor))
    }

    /// Puts a complete node where it belongs; gives it back when that is the root.
    fn add(&mut self, built: Built) -> Option<Node> {
        let Some(frame) = self.open.last_mut() else { return Some(built.node) };
        frame.size += built.size;
        frame.height = frame.height.max(built.height + 1);
        match &mut frame.content {
            Content::List(items) => items.push(built.node),
            Content::Map(map) => map.add(built.node, self.notes),
        }
        None
    }

    fn alias(&mut self, anchor: usize, at: At) -> Result<Built, Stop> {
        let Some(built) = self.anchors.get(&anchor) else {
            self.notes.fault(at, "the alias stands within what it stands for");
            return Err(Stop);
        };
        self.aliased = self.aliased.saturating_add(built.size);
        if self.aliased > MAX_ALIASED {
            self.notes.fault(at, format!("the aliases stand for more than {MAX_ALIASED} nodes"));
            return Err(Stop);
        }
        if self.open.len() + built.height > MAX_DEPTH {
            self.notes.fault(at, format!("nested more than {MAX_DEPTH} levels deep by aliases"));
            return Err(Stop);
        }
        Ok(built.clone())
    }

    /// The entries of a complete mapping with those that `<<` brings; entries written out win, then
    /// earlier ones.
    fn merge(&mut self, map: OpenMap) -> Vec<Entry> {
        let OpenMap { mut entries, mut keys, merged, .. } = map;
        for node in merged {
            let Data::Map(more) = node.data else {
                self.notes.fault(node.at, "`<<` merges mappings and lists of mappings only");
                continue;
            };
            for entry in more {
                if keys.insert(Arc::clone(&entry.key), entry.key_at).is_none() {
                    entries.push(entry);
                }
            }
        }
        entries
    }

    /// True if the meaning of a scalar is open; with `!!str`, or quoted, it is text.
    fn is_plain(&mut self, style: ScalarStyle, tag: Option<&Tag>, at: At) -> bool {
        let Some(tag) = tag else { return style == ScalarStyle::Plain };
        match &*tag.suffix {
            "int" | "float" | "bool" | "null" if tag.is_yaml_core_schema() => true,
            "str" if tag.is_yaml_core_schema() => false,
            _ => {
                self.notes.fault(at, format!("unknown tag {}", quote(&tag.to_string())));
                false
            }
        }
    }

    fn check_tag(&mut self, tag: Option<Cow<'_, Tag>>, at: At, expected: &str) {
        if let Some(tag) = tag
            && !(tag.is_yaml_core_schema() && tag.suffix == expected)
        {
            self.notes.fault(at, format!("unknown tag {}", quote(&tag.to_string())));
        }
    }

    fn syntax(&mut self, error: &ScanError) -> Stop {
        let info = error.info();
        let hint = if info.contains("alias") || info.contains("unknown anchor") {
            Some("put quotes around a value that begins with \"*\" or \"&\"".to_owned())
        } else if info.contains("tab") {
            Some("indent with spaces".to_owned())
        } else {
            None
        };
        let at = self.at(*error.marker());
        self.notes.fault_with(at, format!("not valid YAML: {info}"), hint);
        Stop
    }

    /// The crate counts lines from 1 and columns from 0.
    fn at(&self, mark: Marker) -> At {
        At { file: self.file, line: mark.line() as u32, column: mark.col() as u32 + 1 }
    }
}

impl OpenMap {
    fn add(&mut self, node: Node, notes: &mut Notes) {
        match self.key.take() {
            None => self.key = Some((self.accept(&node, notes), node.at)),
            Some((None, _)) => {}
            Some((Some(key), key_at)) if &*key == "<<" => match node.data {
                Data::List(items) => self.merged.extend(items),
                _ => self.merged.push(Node { at: key_at, ..node }),
            },
            Some((Some(key), key_at)) => self.entries.push(Entry { key, key_at, value: node }),
        }
    }

    /// The text of a key, unless it has none or was written before.
    fn accept(&mut self, node: &Node, notes: &mut Notes) -> Option<Arc<str>> {
        let Some(text) = node.text() else {
            notes.fault(node.at, format!("a key must be text, found {}", node.describe()));
            return None;
        };
        let key = Arc::clone(text);
        if let Some(first) = self.keys.insert(Arc::clone(&key), node.at) {
            let hint = format!("first written in line {}", first.line);
            notes.fault_with(node.at, format!("duplicate key {}", quote(&key)), hint);
            self.keys.insert(key, first);
            return None;
        }
        Some(key)
    }
}
