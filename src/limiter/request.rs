//! What a caller asks, free of any protocol.

use bytes::Bytes;

use crate::domain::{Hits, Unit};

/// May this pass? One status per descriptor answers it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    /// The namespace of the policies.
    pub domain: Bytes,
    /// What to count, in the caller's order.
    pub descriptors: Vec<Descriptor>,
}

/// An ordered list of entries, and what is asked of its limit.
#[derive(Clone, Debug, PartialEq)]
pub struct Descriptor {
    /// Key and value pairs; any bytes.
    pub entries: Vec<Entry>,
    /// The cost.
    pub hits: Hits,
    /// A limit that the caller brings along.
    pub limit: Option<Override>,
}

/// One pair of a descriptor.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// Such as `remote_address`.
    pub key: Bytes,
    /// Such as `10.0.0.7`.
    pub value: Bytes,
}

/// A limit that the caller brings along.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Override {
    /// Requests per period.
    pub requests_per_unit: u32,
    /// None: unset, or a number that is no unit.
    pub unit: Option<Unit>,
    /// How many units make the period; 1 when the caller sends none.
    pub unit_multiplier: u32,
}

/// The largest request that is looked at. What is larger is over its limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Bounds {
    /// Descriptors per request.
    pub descriptors: usize,
    /// Entries per descriptor.
    pub entries: usize,
    /// Bytes of an entry's key, and of the domain.
    pub key_bytes: usize,
    /// Bytes of an entry's value.
    pub value_bytes: usize,
    /// Limits that a request meets, over all its descriptors.
    pub limits: usize,
}

impl Bounds {
    /// Whether `request` may be looked at.
    pub fn hold(&self, request: &Request) -> bool {
        request.domain.len() <= self.key_bytes
            && request.descriptors.len() <= self.descriptors
            && request.descriptors.iter().all(|descriptor| {
                descriptor.entries.len() <= self.entries
                    && descriptor.entries.iter().all(|entry| {
                        entry.key.len() <= self.key_bytes && entry.value.len() <= self.value_bytes
                    })
            })
    }
}
