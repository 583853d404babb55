//! The shapes of client names with hashed values, by which a request's values find such a client.

use crate::limits::Entries;
use crate::limits::name::Value;

/// The places of hashed values in a name: few in a domain, as policies mark them.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct Shape {
    /// The number of entries.
    entries: usize,
    /// Index and key of each entry whose value is hashed, in order.
    hashed: Box<[(usize, Box<[u8]>)]>,
}

impl Shape {
    /// None: no value is hashed.
    pub(super) fn of(entries: &Entries) -> Option<Self> {
        let hashed = entries.iter().enumerate().filter(|(_, (_, value))| value.hashed);
        let hashed: Box<[_]> = hashed.map(|(i, (key, _))| (i, key.into())).collect();
        (!hashed.is_empty()).then(|| Self { entries: entries.iter().count(), hashed })
    }

    /// The entries of a request with the values at these places hashed; none: they do not fit.
    pub(super) fn apply<'e>(
        &self,
        entries: &(impl Iterator<Item = (&'e [u8], &'e [u8])> + Clone),
        hash: &impl Fn(&[u8]) -> String,
    ) -> Option<Entries> {
        if entries.clone().count() != self.entries {
            return None;
        }
        let mut hashes = Vec::with_capacity(self.hashed.len());
        for (i, key) in &self.hashed {
            let (_, value) = entries.clone().nth(*i).filter(|(own, _)| *own == &**key)?;
            hashes.push(hash(value));
        }
        let place = |i: usize| self.hashed.iter().position(|(hashed, _)| *hashed == i);
        Some(Entries::of(entries.clone().enumerate().map(|(i, (key, value))| {
            let hash = place(i).and_then(|place| hashes.get(place));
            let value = hash
                .map_or(Value::clear(value), |hash| Value { bytes: hash.as_bytes(), hashed: true });
            (key, value)
        })))
    }
}
