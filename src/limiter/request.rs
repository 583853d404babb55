//! A request of a caller, free of any protocol. It borrows its text from the message that it came
//! in.

use smallvec::SmallVec;

use crate::domain::{Hits, Limit, Unit};
use crate::settings::section;

/// May this pass? One status per descriptor answers it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request<'m> {
    /// The namespace of the policies.
    pub domain: &'m [u8],
    /// The descriptors to count, in the caller's order.
    pub descriptors: SmallVec<[Descriptor<'m>; 1]>,
}

/// An ordered list of entries, and what is asked of its limit.
#[derive(Clone, Debug, PartialEq)]
pub struct Descriptor<'m> {
    /// Key and value pairs; any bytes.
    pub entries: SmallVec<[Entry<'m>; 3]>,
    /// The cost.
    pub hits: Hits,
    /// The descriptor states the cost itself, so a limit that settles books it.
    pub own_hits: bool,
    /// The cost by kind, of a descriptor that names kinds.
    pub usage: Option<Box<Usage<'m>>>,
    /// A limit that the caller brings along.
    pub limit: Option<Override>,
}

/// Hits by kind, such as tokens that a model reads and tokens that it writes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Usage<'m>(Vec<(Option<&'m [u8]>, u64)>);

impl<'m> Usage<'m> {
    /// These hits of `kind`; none: of no kind.
    pub fn of(kind: Option<&'m [u8]>, hits: u64) -> Self {
        Self(vec![(kind, hits)])
    }

    /// The same with what `other` has.
    #[must_use]
    pub fn with(mut self, other: Self) -> Self {
        for (kind, hits) in other.0 {
            match self.0.iter_mut().find(|(known, _)| *known == kind) {
                Some((_, known)) => *known = known.saturating_add(hits),
                None => self.0.push((kind, hits)),
            }
        }
        self
    }

    /// The hits of each kind.
    pub fn kinds(&self) -> impl Iterator<Item = (Option<&'m [u8]>, u64)> {
        self.0.iter().copied()
    }
}

/// One pair of a descriptor.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Entry<'m> {
    /// Such as `remote_address`.
    pub key: &'m [u8],
    /// Such as `10.0.0.7`.
    pub value: &'m [u8],
}

/// A limit that the caller brings along.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Override {
    /// Requests per period.
    pub requests_per_unit: u32,
    /// None: unset, or a number that is no unit.
    pub unit: Option<Unit>,
    /// The number of units of the period; 1 when the caller sends none.
    pub unit_multiplier: u32,
}

impl Descriptor<'_> {
    /// The hits asked of `limit`. Under a limit that settles, a cost of the descriptor's own is
    /// booked, and one of 0 passes as long as no more than the limit is used.
    pub const fn hits_of(&self, limit: &Limit) -> Hits {
        match self.hits {
            Hits::Take(hits) if self.own_hits && limit.settles() => Hits::Book(hits),
            Hits::Peek(_) if self.own_hits && limit.settles() => Hits::Peek(0),
            hits => hits,
        }
    }
}

section! {
    /// Bounds of a request. A larger request is over its limit, not an error.
    pub struct Bounds in "bounds" {
        /// Bytes of a message.
        message_bytes: usize = "65536" in 1..=64 << 20,
        /// Descriptors of a request.
        descriptors: usize = "128" in 1..,
        /// Entries of a descriptor.
        entries: usize = "16" in 1..,
        /// Bytes of an entry's key.
        key_bytes: usize = "1024" in 1..,
        /// Bytes of an entry's value.
        value_bytes: usize = "8192" in 1..,
        /// Limits that a request meets, over all its descriptors. A limit costs Redis about 6 µs.
        limits: usize = "512" in MAX_LIMITS_OF_A_NODE..,
    }
}

/// Limits that a node of a policy, and a client, may have: a request that meets one node is within
/// bounds.
const MAX_LIMITS_OF_A_NODE: usize = 16;

impl Bounds {
    /// Returns true if `request` is within the bounds.
    pub fn hold(&self, request: &Request<'_>) -> bool {
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
