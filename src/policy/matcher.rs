//! The descriptor tree: from the entries of a descriptor to the node they lead to.
//!
//! At each level an entry takes the node of exactly its key and value; else the first node of its
//! key, in file order, whose wildcards match; else the node of the key alone. The choice is final:
//! what fails further down does not go back. Keys and values are never joined, so `("a", "b_c")`
//! and `("a_b", "c")` cannot meet. Finding allocates nothing. Nothing here recurses: a tree may be
//! thousands of levels deep.

mod by_name;

use std::mem;
use std::sync::Arc;

use self::by_name::ByName;
use super::pattern::Pattern;
use super::rule::Rule;

/// One level of the tree.
#[derive(Debug, Default)]
pub(super) struct Level {
    keys: ByName<Values>,
}

/// The nodes of one key at one level.
#[derive(Debug, Default)]
struct Values {
    exact: ByName<Node>,
    patterns: Vec<(Pattern, Node)>,
    any: Option<Box<Node>>,
}

/// The node to which an entry leads.
#[derive(Debug, Default)]
pub(super) struct Node {
    /// The rule of a descriptor that ends here.
    pub(super) rule: Option<Arc<Rule>>,
    /// The values that lead here must not be shown or stored as they are.
    pub(super) sensitive: bool,
    pub(super) below: Level,
}

/// The values that a node takes.
pub(super) enum Slot {
    Exact(Arc<str>),
    Pattern(Pattern),
    Any,
}

impl Level {
    /// Adds a node; patterns of a key are tried in the order they were added.
    pub(super) fn insert(&mut self, key: &str, slot: Slot, node: Node) {
        let values = self.keys.get_or_default(key.as_bytes());
        match slot {
            Slot::Exact(value) => values.exact.insert(value.as_bytes(), node),
            Slot::Pattern(pattern) => values.patterns.push((pattern, node)),
            Slot::Any => values.any = Some(Box::new(node)),
        }
    }

    /// Returns whether a node marks values as sensitive.
    pub(super) fn marks_sensitive(&self) -> bool {
        let mut levels = vec![self];
        while let Some(level) = levels.pop() {
            for node in level.keys.values().flat_map(Values::nodes) {
                if node.sensitive {
                    return true;
                }
                levels.push(&node.below);
            }
        }
        false
    }

    /// The rule of the node that the last of `entries` leads to.
    pub(super) fn find<'e>(
        &self,
        entries: impl IntoIterator<Item = (&'e [u8], &'e [u8])>,
    ) -> Option<&Arc<Rule>> {
        self.node(entries)?.rule.as_ref()
    }

    /// The node that the last of `entries` leads to.
    fn node<'e>(&self, entries: impl IntoIterator<Item = (&'e [u8], &'e [u8])>) -> Option<&Node> {
        let mut level = self;
        let mut last = None;
        for (key, value) in entries {
            let node = level.keys.get(key)?.get(value)?;
            level = &node.below;
            last = Some(node);
        }
        last
    }

    /// True if there are nodes below the one to which the last of `entries` leads.
    pub(super) fn goes_on<'e>(
        &self,
        entries: impl IntoIterator<Item = (&'e [u8], &'e [u8])>,
    ) -> bool {
        self.node(entries).is_some_and(|node| !node.below.keys.is_empty())
    }

    /// For each of `entries` whether its value is sensitive, as far as they lead anywhere.
    pub(super) fn sensitive<'l, 'e: 'l>(
        &'l self,
        entries: impl IntoIterator<Item = (&'e [u8], &'e [u8]), IntoIter: 'l>,
    ) -> impl Iterator<Item = bool> + 'l {
        entries.into_iter().scan(self, |level, (key, value)| {
            let node = level.keys.get(key)?.get(value)?;
            *level = &node.below;
            Some(node.sensitive)
        })
    }
}

/// Takes the tree apart level by level: the drop of a tree of thousands of levels would otherwise
/// recurse and exhaust the stack.
impl Drop for Level {
    fn drop(&mut self) {
        let mut levels = vec![mem::take(&mut self.keys)];
        while let Some(keys) = levels.pop() {
            for Values { exact, patterns, any } in keys.into_values() {
                let patterns = patterns.into_iter().map(|(_, node)| node);
                let nodes = exact.into_values().chain(patterns).chain(any.map(|node| *node));
                // A level without keys has nothing to take apart.
                levels.extend(nodes.map(|mut node| mem::take(&mut node.below.keys)));
            }
        }
    }
}

impl Values {
    fn nodes(&self) -> impl Iterator<Item = &Node> {
        let patterns = self.patterns.iter().map(|(_, node)| node);
        self.exact.values().chain(patterns).chain(self.any.as_deref())
    }

    fn get(&self, value: &[u8]) -> Option<&Node> {
        let wild = || self.patterns.iter().find(|(pattern, _)| pattern.matches(value));
        let exact = self.exact.get(value);
        exact.or_else(|| wild().map(|(_, node)| node)).or(self.any.as_deref())
    }
}

#[cfg(test)]
mod tests;
