//! Several groups as the arguments of one call, each counter named once.

use std::hash::BuildHasher as _;
use std::ops::Range;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::super::resp;
use super::Encoded;
use crate::store::StoreError;

/// Groups that are decided by one call of the script, one after the other.
#[derive(Debug, Default)]
pub struct Frame {
    args: Vec<u8>,
    /// The distinct keys of the groups, in the order of their slots, one after the other.
    names: Vec<u8>,
    /// Where in `names` each key is.
    keys: Vec<Range<usize>>,
    /// The slots, found by their keys.
    slots: HashTable<u16>,
    hasher: DefaultHashBuilder,
    /// How many integers of the reply each group has.
    integers: Vec<usize>,
}

impl Frame {
    /// Adds a group.
    ///
    /// # Errors
    /// More than 65 535 keys; the group is not added then.
    pub fn push(&mut self, group: &Encoded) -> Result<(), StoreError> {
        let offset = self.args.len();
        self.args.extend_from_slice(&group.bytes);
        for (at, key) in &group.slots {
            let Some(slot) = self.slot(key.as_bytes()) else {
                self.args.truncate(offset);
                let reason = "more than 65535 counters in one call".to_owned();
                return Err(StoreError::Rejected(reason));
            };
            if let Some(place) = self.args.get_mut(offset + at..offset + at + 2) {
                place.copy_from_slice(&slot.to_le_bytes());
            }
        }
        self.integers.push(group.integers());
        Ok(())
    }

    /// Removes all groups.
    pub fn clear(&mut self) {
        self.args.clear();
        self.names.clear();
        self.keys.clear();
        self.slots.clear();
        self.integers.clear();
    }

    /// The distinct keys of the groups, in the order of their slots.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.keys.iter().map(|place| name(&self.names, place))
    }

    /// The groups as the script reads them.
    pub fn args(&self) -> &[u8] {
        &self.args
    }

    /// How many integers of the reply each group has.
    pub fn integers(&self) -> &[usize] {
        &self.integers
    }

    /// The slot of `key`, a new one if it has none yet; none if there are too many.
    fn slot(&mut self, key: &[u8]) -> Option<u16> {
        let Self { names, keys, slots, hasher, .. } = self;
        let of = |slot: u16| keys.get(usize::from(slot) - 1).map_or(&[][..], |at| name(names, at));
        let hash = hasher.hash_one(key);
        if let Some(slot) = slots.find(hash, |slot| of(*slot) == key) {
            return Some(*slot);
        }
        let slot = u16::try_from(keys.len() + 1).ok()?;
        slots.insert_unique(hash, slot, |slot| hasher.hash_one(of(*slot)));
        keys.push(names.len()..names.len() + key.len());
        names.extend_from_slice(key);
        Some(slot)
    }

    /// Writes the command `command`, which runs `script` on the groups, to `out`.
    pub(super) fn write(&self, command: &[u8], script: &[u8], out: &mut Vec<u8>) {
        resp::put_count(out, 4 + self.keys.len());
        resp::put_string(out, command);
        resp::put_string(out, script);
        resp::put_number(out, self.keys.len());
        for key in self.keys() {
            resp::put_string(out, key);
        }
        resp::put_string(out, &self.args);
    }
}

fn name<'a>(names: &'a [u8], place: &Range<usize>) -> &'a [u8] {
    names.get(place.clone()).unwrap_or_default()
}
