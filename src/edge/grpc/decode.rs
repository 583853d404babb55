//! Decodes a request straight from the bytes of its message.
//!
//! Messages as callers send them are read here, without a tree of messages in between. What a
//! caller does not send is left to prost: groups, and whatever is not valid, whose refusal it
//! words. Both readers give the same request, which is tested.

use prost::{DecodeError, Message as _};
use smallvec::SmallVec;

use super::convert::{hits, unchecked_from_pb, unit_from_number};
use super::wire::Unread;
use crate::domain::Hits;
use crate::edge::pb;
use crate::limiter::request::{Descriptor, Entry, Override, Request};

/// The message of prost, where that has read it.
pub(super) type Tree = Option<Box<pb::RateLimitRequest>>;

/// Decodes a `RateLimitRequest`, which borrows from `message` or from `tree`. Its domain and
/// descriptors may be empty.
pub(super) fn request<'m>(
    message: &'m [u8],
    tree: &'m mut Tree,
) -> Result<Request<'m>, DecodeError> {
    if let Some(request) = plain(message) {
        return Ok(request);
    }
    let read = pb::RateLimitRequest::decode(message)?;
    Ok(unchecked_from_pb(tree.insert(Box::new(read))))
}

/// The request of a message that is valid and has no groups.
fn plain(message: &[u8]) -> Option<Request<'_>> {
    let mut request = Request::default();
    let mut hits_addend = 0;
    let mut unread = Unread(message);
    while !unread.is_empty() {
        match unread.varint()? {
            0x0a => request.domain = unread.content()?,
            0x12 => request.descriptors.push(descriptor(unread.content()?)?),
            0x18 => hits_addend = unread.varint()? as u32,
            key => unread.skip(key, 3)?,
        }
    }
    if hits_addend > 1 {
        for descriptor in request.descriptors.iter_mut().filter(|each| !each.own_hits) {
            let is_negative = matches!(descriptor.hits, Hits::Refund(_));
            descriptor.hits = hits(None, is_negative, hits_addend.into());
        }
    }
    Some(request)
}

/// A descriptor, whose request asks for one hit.
fn descriptor(bytes: &[u8]) -> Option<Descriptor<'_>> {
    let mut entries = SmallVec::new();
    let (mut limit, mut hits_addend, mut is_negative) = (None, None, false);
    let mut unread = Unread(bytes);
    while !unread.is_empty() {
        match unread.varint()? {
            0x0a => entries.push(entry(unread.content()?)?),
            0x12 => override_of(unread.content()?, limit.get_or_insert_default())?,
            0x1a => wrapped(unread.content()?, hits_addend.get_or_insert(0))?,
            0x20 => is_negative = unread.varint()? != 0,
            key => unread.skip(key, 4)?,
        }
    }
    Some(Descriptor {
        entries,
        hits: hits(hits_addend, is_negative, 1),
        own_hits: hits_addend.is_some(),
        usage: None,
        limit: limit.map(Override::from),
    })
}

fn entry(bytes: &[u8]) -> Option<Entry<'_>> {
    short_entry(bytes).or_else(|| any_entry(bytes))
}

/// The key and the value of an entry as callers write it: once each, in order, with lengths of one
/// byte.
fn short_entry(bytes: &[u8]) -> Option<Entry<'_>> {
    let [0x0a, length @ 0..0x80, rest @ ..] = bytes else { return None };
    let (key, rest) = rest.split_at_checked((*length).into())?;
    match rest {
        [0x12, length @ 0..0x80, value @ ..] if value.len() == usize::from(*length) => {
            Some(Entry { key, value })
        }
        _ => None,
    }
}

fn any_entry(bytes: &[u8]) -> Option<Entry<'_>> {
    let mut entry = Entry::default();
    let mut unread = Unread(bytes);
    while !unread.is_empty() {
        match unread.varint()? {
            0x0a => entry.key = unread.content()?,
            0x12 => entry.value = unread.content()?,
            other => unread.skip(other, 2)?,
        }
    }
    Some(entry)
}

/// The fields of an override, as far as they are sent.
#[derive(Clone, Copy, Debug, Default)]
struct Sent {
    requests_per_unit: u32,
    unit: i32,
    unit_multiplier: Option<u64>,
}

impl From<Sent> for Override {
    fn from(sent: Sent) -> Self {
        Self {
            requests_per_unit: sent.requests_per_unit,
            unit: unit_from_number(sent.unit),
            unit_multiplier: sent.unit_multiplier.map_or(1, |many| many as u32),
        }
    }
}

/// Merges an override into `sent`.
fn override_of(bytes: &[u8], sent: &mut Sent) -> Option<()> {
    let mut unread = Unread(bytes);
    while !unread.is_empty() {
        match unread.varint()? {
            0x08 => sent.requests_per_unit = unread.varint()? as u32,
            0x10 => sent.unit = unread.varint()? as i32,
            0x1a => wrapped(unread.content()?, sent.unit_multiplier.get_or_insert(0))?,
            key => unread.skip(key, 3)?,
        }
    }
    Some(())
}

/// Merges a number that stands in a message of its own, such as `google.protobuf.UInt64Value`.
fn wrapped(bytes: &[u8], value: &mut u64) -> Option<()> {
    let mut unread = Unread(bytes);
    while !unread.is_empty() {
        match unread.varint()? {
            0x08 => *value = unread.varint()?,
            key => unread.skip(key, 1)?,
        }
    }
    Some(())
}

#[cfg(test)]
mod tests;
