//! The tree of one domain: messages to a draft.
//!
//! It accepts all that envoyproxy/ratelimit accepts, and more: control planes generate siblings of
//! the same key and value, which are joined here. A fault would refuse the limits of all domains.
//! Faults are in the words of envoyproxy/ratelimit.
//!
//! Nothing recurses: the messages of each level are decoded on their own, from a queue.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;
use prost::Message as _;
use prost_types::Struct;
use serde_json::{Map, Value};

use super::metadata;
use super::pb::{RateLimitDescriptor, RateLimitPolicy, RateLimitUnit};
use crate::domain::Unit;
use crate::policy::{
    Draft, DraftLimit, DraftNode, LONGEST_NAME, MAX_METADATA_BYTES, MAX_METADATA_LEVELS,
    fits_header,
};

/// The deepest tree. No request of so many entries is within bounds.
const MAX_LEVELS: usize = 4_096;

/// A draft that grows.
#[derive(Debug)]
pub(super) struct Tree {
    draft: Draft,
    /// The position of each node among those of its parent.
    places: HashMap<Place, usize>,
}

/// A parent, a key and a value.
type Place = (Option<usize>, Arc<str>, Option<Arc<str>>);

/// Faults and warnings of one resource.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Findings {
    pub(super) faults: Vec<String>,
    pub(super) warnings: Vec<String>,
}

impl Tree {
    pub(super) fn new(domain: &str) -> Self {
        let draft = Draft { domain: domain.into(), nodes: Vec::new() };
        Self { draft, places: HashMap::new() }
    }

    pub(super) fn into_draft(self) -> Draft {
        self.draft
    }

    /// Adds encoded descriptors, with all below them.
    pub(super) fn add(&mut self, descriptors: Vec<Bytes>, found: &mut Findings) {
        let mut queue = VecDeque::from([(None, 1, descriptors)]);
        while let Some((parent, level, descriptors)) = queue.pop_front() {
            if level > MAX_LEVELS {
                found.faults.push(format!("descriptors are nested more than {MAX_LEVELS} deep"));
                return;
            }
            for encoded in descriptors {
                let descriptor = match RateLimitDescriptor::decode(encoded) {
                    Ok(descriptor) => descriptor,
                    Err(error) => {
                        found.faults.push(format!("a descriptor cannot be decoded: {error}"));
                        continue;
                    }
                };
                if descriptor.key.is_empty() {
                    found.faults.push("descriptor has empty key".to_owned());
                    continue;
                }
                let (node, below) = node(parent, descriptor, found);
                let place = self.join(node, found);
                if !below.is_empty() {
                    queue.push_back((Some(place), level + 1, below));
                }
            }
        }
    }

    /// Adds a node, or joins it with its sibling of the same key and value. Returns its position.
    fn join(&mut self, node: DraftNode, found: &mut Findings) -> usize {
        let nodes = &mut self.draft.nodes;
        let id = (node.parent, Arc::clone(&node.key), node.value.clone());
        let place = *self.places.entry(id).or_insert(nodes.len());
        match nodes.get_mut(place) {
            Some(first) => merge(first, node, found),
            None => nodes.push(node),
        }
        place
    }
}

/// The node of a message, and the encoded descriptors below it.
fn node(
    parent: Option<usize>,
    descriptor: RateLimitDescriptor,
    found: &mut Findings,
) -> (DraftNode, Vec<Bytes>) {
    let RateLimitDescriptor { key, value, rate_limit, descriptors, .. } = descriptor;
    let node = DraftNode {
        parent,
        key: key.into(),
        value: (!value.is_empty()).then(|| value.into()),
        limits: rate_limit.and_then(|policy| limit(policy, found)).into_iter().collect(),
        shadow_mode: descriptor.shadow_mode,
        quota_mode: descriptor.quota_mode,
        detailed_metric: descriptor.detailed_metric,
        metadata: metadata_of(descriptor.metadata, found),
    };
    (node, descriptors)
}

fn limit(policy: RateLimitPolicy, found: &mut Findings) -> Option<DraftLimit> {
    let unit = unit(policy.unit);
    if policy.unlimited && unit.is_some() {
        found.faults.push("should not specify rate limit unit when unlimited".to_owned());
        return None;
    }
    if !policy.unlimited && unit.is_none() {
        let name = RateLimitUnit::try_from(policy.unit)
            .map_or_else(|_| policy.unit.to_string(), |unit| unit.as_str_name().to_owned());
        found.faults.push(format!("invalid rate limit unit '{name}'"));
        return None;
    }
    let mut replaces = Vec::new();
    for replaced in policy.replaces {
        if replaced.name.is_empty() {
            found.faults.push("should not have an empty replaces entry".to_owned());
        } else if replaced.name == policy.name {
            let fault = "replaces should not contain name of same descriptor";
            found.faults.push(fault.to_owned());
        } else {
            replaces.push(for_header(&replaced.name, found));
        }
    }
    let name = (!policy.name.is_empty()).then(|| for_header(&policy.name, found));
    Some(DraftLimit { unit, requests_per_unit: policy.requests_per_unit, name, replaces })
}

/// The unit of a number; none: unset or undefined.
fn unit(number: i32) -> Option<Unit> {
    match RateLimitUnit::try_from(number).ok()? {
        RateLimitUnit::Unknown => None,
        RateLimitUnit::Second => Some(Unit::Second),
        RateLimitUnit::Minute => Some(Unit::Minute),
        RateLimitUnit::Hour => Some(Unit::Hour),
        RateLimitUnit::Day => Some(Unit::Day),
        RateLimitUnit::Week => Some(Unit::Week),
        RateLimitUnit::Month => Some(Unit::Month),
        RateLimitUnit::Year => Some(Unit::Year),
    }
}

/// A name that Envoy may copy into a header. What does not fit becomes `_`.
fn for_header(name: &str, found: &mut Findings) -> Arc<str> {
    if fits_header(name) && name.len() <= LONGEST_NAME {
        return name.into();
    }
    let fit = |c: char| if fits_header(c.encode_utf8(&mut [0; 4])) { c } else { '_' };
    let fitting: String = name.chars().map(fit).take(LONGEST_NAME).collect();
    found.warnings.push(format!("limit name {name:?} does not fit a header: it is {fitting:?}"));
    fitting.into()
}

/// The metadata, or none with a warning: it is not worth the limits of all domains.
fn metadata_of(encoded: Bytes, found: &mut Findings) -> Option<Map<String, Value>> {
    if encoded.is_empty() {
        return None;
    }
    let reason = match Struct::decode(encoded).map(|fields| metadata::to_object(&fields)) {
        Err(error) => error.to_string(),
        Ok(object) => {
            let value = Value::Object(object);
            let (deep, bytes) = (metadata::levels(&value), value.to_string().len());
            match value {
                Value::Object(object)
                    if deep <= MAX_METADATA_LEVELS && bytes <= MAX_METADATA_BYTES =>
                {
                    return Some(object);
                }
                _ => format!("{bytes} bytes as JSON, {deep} levels"),
            }
        }
    };
    let most = format!("{MAX_METADATA_BYTES} bytes, {MAX_METADATA_LEVELS} levels");
    found.warnings.push(format!("metadata is left out: {reason}; at most {most}"));
    None
}

/// Joins a node with its later twin: all of both is enforced.
fn merge(first: &mut DraftNode, twin: DraftNode, found: &mut Findings) {
    let value = first.value.as_ref().map_or(String::new(), |value| format!(", value {value:?}"));
    let message = format!("two descriptors of key {:?}{value} are joined", first.key);
    found.warnings.push(message);
    first.detailed_metric |= twin.detailed_metric;
    if first.metadata.is_none() {
        first.metadata = twin.metadata;
    }
    if twin.limits.is_empty() || first.limits.is_empty() {
        if first.limits.is_empty() {
            first.limits = twin.limits;
            (first.shadow_mode, first.quota_mode) = (twin.shadow_mode, twin.quota_mode);
        }
        return;
    }
    first.quota_mode &= twin.quota_mode;
    match (first.shadow_mode, twin.shadow_mode) {
        // A limit that only reports neither weakens the other one nor denies by it.
        (false, true) => {}
        (true, false) => {
            first.limits = twin.limits;
            first.shadow_mode = false;
        }
        _ => twin.limits.into_iter().for_each(|limit| add_limit(&mut first.limits, limit)),
    }
}

/// Adds a limit to those of a node: of two with the same unit the smaller one, which holds where
/// both do; anything rather than an unlimited one.
fn add_limit(limits: &mut Vec<DraftLimit>, limit: DraftLimit) {
    if limit.unit.is_none() {
        return;
    }
    limits.retain(|other| other.unit.is_some());
    match limits.iter_mut().find(|other| other.unit == limit.unit) {
        Some(other) if other.requests_per_unit > limit.requests_per_unit => *other = limit,
        Some(_) => {}
        None => limits.push(limit),
    }
}

#[cfg(test)]
mod tests;
