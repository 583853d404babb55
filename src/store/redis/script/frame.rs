//! Several groups as the arguments of one call, each counter and each limit named once.

use super::Encoded;
use super::distinct::Distinct;
use super::layout::{self, Record as _};
use crate::redis::resp;
use crate::store::StoreError;

/// Groups that are decided by one call of the script, one after the other.
#[derive(Debug, Default)]
pub struct Frame {
    groups: Vec<u8>,
    /// The keys of the counters, by slot.
    keys: Distinct,
    limits: Distinct,
    /// The number of integers of the reply of each group.
    integers: Vec<usize>,
}

impl Frame {
    /// Adds a group.
    ///
    /// # Errors
    /// More than 65 535 keys; the group is not added then.
    pub fn push(&mut self, group: &Encoded) -> Result<(), StoreError> {
        let offset = self.groups.len();
        self.groups.extend_from_slice(&group.bytes);
        for open in &group.open {
            let slot = self.keys.number_of(open.key.as_bytes());
            let limit = self.limits.number_of(open.limit.as_bytes());
            let (Some(slot), Some(limit)) = (slot, limit) else {
                self.groups.truncate(offset);
                let reason = "more than 65535 counters in one call".to_owned();
                return Err(StoreError::Rejected(reason));
            };
            let mut place = self.groups.get_mut(offset + open.at..).unwrap_or_default();
            layout::ClaimHead { slot, limit, ..open.head }.write(&mut place);
        }
        self.integers.push(group.integers());
        Ok(())
    }

    /// Removes all groups.
    pub fn clear(&mut self) {
        self.groups.clear();
        self.keys.clear();
        self.limits.clear();
        self.integers.clear();
    }

    /// The distinct keys of the groups, in the order of their slots.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.keys.iter()
    }

    /// The groups and their limits as the script reads them.
    pub fn args(&self) -> [&[u8]; 2] {
        [&self.groups, self.limits.joined()]
    }

    /// The number of integers of the reply of each group.
    pub fn integers(&self) -> &[usize] {
        &self.integers
    }

    /// Writes the command `command`, which runs `script` on the groups, to `out`.
    pub(super) fn write(&self, command: &[u8], script: &[u8], out: &mut Vec<u8>) {
        let args = self.args();
        resp::put_count(out, 3 + self.keys.len() + args.len());
        resp::put_string(out, command);
        resp::put_string(out, script);
        resp::put_number(out, self.keys.len());
        for key in self.keys() {
            resp::put_string(out, key);
        }
        for arg in args {
            resp::put_string(out, arg);
        }
    }
}
