//! A draft in the shape of a policy file.
//!
//! Nothing recurses: children are joined to their parents from the end of the list on.

use std::sync::Arc;

use super::super::draft::{Draft, DraftLimit, DraftNode};
use super::{Descriptor, Field, File, Given, Limit, Signs};
use crate::yaml::At;

impl File {
    /// The file that `draft` would be, as the `file`-th. Its faults are at no line.
    pub(in super::super) fn of(draft: &Draft, file: u32) -> Self {
        let at = At { file, line: 0, column: 0 };
        let mut below: Vec<Vec<Descriptor>> = draft.nodes.iter().map(|_| Vec::new()).collect();
        let mut top = Vec::new();
        for node in draft.nodes.iter().rev() {
            // As many as there are nodes; children came before, the last one first.
            let mut descriptors = below.pop().unwrap_or_default();
            descriptors.reverse();
            let siblings = node.parent.and_then(|parent| below.get_mut(parent));
            siblings.unwrap_or(&mut top).push(Descriptor::of(node, descriptors, at));
        }
        top.reverse();
        let domain = Some((Arc::clone(&draft.domain), at));
        Self { domain, descriptors: top, signs: Signs::default() }
    }
}

impl Descriptor {
    fn of(node: &DraftNode, descriptors: Vec<Self>, at: At) -> Self {
        let flag = |flag: bool| given(flag.then_some(true), at);
        Self {
            at,
            key: given(Some(Arc::clone(&node.key)), at).0,
            value: given(node.value.clone(), at),
            limits: node.limits.iter().map(|limit| Limit::of(limit, at)).collect(),
            has_limits: !node.limits.is_empty(),
            shadow_mode: flag(node.shadow_mode),
            quota_mode: flag(node.quota_mode),
            detailed_metric: flag(node.detailed_metric),
            value_to_metric: Field::ABSENT,
            share_threshold: Field::ABSENT,
            sensitive: Field::ABSENT,
            metadata: node.metadata.clone(),
            adaptive: None,
            descriptors,
        }
    }
}

impl Limit {
    fn of(limit: &DraftLimit, at: At) -> Self {
        let counts = limit.unit.is_some();
        Self {
            at,
            unit: given(limit.unit, at),
            unit_multiplier: Field::ABSENT,
            requests_per_unit: given(counts.then_some(limit.requests_per_unit), at),
            unlimited: given((!counts).then_some(true), at),
            name: given(limit.name.clone(), at),
            replaces: limit.replaces.iter().map(|name| (Arc::clone(name), at)).collect(),
            algorithm: Field::ABSENT,
            burst: Field::ABSENT,
            slots: Field::ABSENT,
            charge: Field::ABSENT,
            max_debt: Field::ABSENT,
            max_wait: Field::ABSENT,
            on_store_failure: Field::ABSENT,
            lease: None,
            calendar: None,
            max: Field::ABSENT,
            ttl: Field::ABSENT,
            hold: None,
            cost: Field::ABSENT,
        }
    }
}

fn given<T>(value: Option<T>, at: At) -> Field<T> {
    Field(value.map(|value| Given { key_at: at, at, value: Some(value) }))
}
