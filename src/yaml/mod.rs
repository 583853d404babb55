//! YAML text to nodes that know their place: the reader of policies and of settings.
//!
//! * [`parse()`]: text to a tree of nodes, within bounds; the only file that knows the YAML crate.
//! * [`Node`]: one value, with its text as written.
//! * [`Notes`]: faults and warnings by place.
//!
//! The readers of the nodes know the keys and the meaning of a text.

mod node;
mod note;
mod parse;
#[cfg(test)]
mod tests;

pub(crate) use self::node::{Data, Entry, Node, to_object};
pub(crate) use self::note::{At, Note, Notes, quote};
pub(crate) use self::parse::{counted_lines, parse};
