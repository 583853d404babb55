//! Several groups as the arguments of one call, each counter and each limit named once.

use super::Encoded;
use super::arguments::Arguments;
use super::layout::{self, Record as _};
use crate::store::StoreError;

/// Groups that are decided by one call of the script, one after the other.
#[derive(Debug, Default)]
pub struct Frame {
    arguments: Arguments,
    /// The number of integers of the reply of each group.
    integers: Vec<usize>,
}

impl Frame {
    /// Adds a group.
    ///
    /// # Errors
    /// More than 65 535 keys; the group is not added then.
    pub fn push(&mut self, group: &Encoded) -> Result<(), StoreError> {
        let offset = self.arguments.records.len();
        self.arguments.records.extend_from_slice(&group.bytes);
        for open in &group.open {
            let numbers = self.arguments.numbers_of(&open.key, &open.limit);
            let (slot, limit) = numbers.inspect_err(|_| self.arguments.records.truncate(offset))?;
            let records = &mut self.arguments.records;
            let mut place = records.get_mut(offset + open.at..).unwrap_or_default();
            layout::ClaimHead { slot, limit, ..open.head }.write(&mut place);
        }
        self.integers.push(group.integers());
        Ok(())
    }

    /// Removes all groups.
    pub fn clear(&mut self) {
        self.arguments.clear();
        self.integers.clear();
    }

    /// The distinct keys of the groups, in the order of their slots.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.arguments.keys()
    }

    /// The groups and their limits as the script reads them.
    pub fn args(&self) -> [&[u8]; 2] {
        self.arguments.args()
    }

    /// The number of integers of the reply of each group.
    pub fn integers(&self) -> &[usize] {
        &self.integers
    }

    /// Writes the command `command`, which runs `script` on the groups, to `out`.
    pub(super) fn write(&self, command: &[u8], script: &[u8], out: &mut Vec<u8>) {
        self.arguments.write(command, script, out);
    }
}
