//! Policies that a control plane wrote: a tree and not a text.
//!
//! A draft takes the place of the text of a [`Source`](super::Source). Its maker has checked what a
//! policy file would be checked for while it is read; `compile` does the rest. The nodes are a list
//! and not a tree of boxes, so that nothing recurses over levels that a stranger has nested.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::domain::Unit;

/// The policy of a domain.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Draft {
    /// The domain, not empty.
    pub domain: Arc<str>,
    /// The nodes; a parent stands before its children, and siblings stand in their order. No two
    /// siblings have the same key and value.
    pub nodes: Vec<DraftNode>,
}

/// A node of the tree.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct DraftNode {
    /// The position of its parent among the nodes; none: it is at the top.
    pub parent: Option<usize>,
    /// The key, not empty.
    pub key: Arc<str>,
    /// The value, not empty; none: any value.
    pub value: Option<Arc<str>>,
    /// Its limits: no two of one unit, and no others beside an unlimited one.
    pub limits: Vec<DraftLimit>,
    /// Its limits do not deny.
    pub shadow_mode: bool,
    /// It denies only when all quota descriptors fail.
    pub quota_mode: bool,
    /// Metrics carry all values of the descriptor.
    pub detailed_metric: bool,
    /// Its part of the answer's dynamic metadata, within bounds.
    pub metadata: Option<Map<String, Value>>,
}

/// A limit of a node.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct DraftLimit {
    /// The unit of its period; none: unlimited.
    pub unit: Option<Unit>,
    /// Requests in a period.
    pub requests_per_unit: u32,
    /// Its name, fit for a header.
    pub name: Option<Arc<str>>,
    /// Limits of these names do not apply where this one does.
    pub replaces: Vec<Arc<str>>,
}
