//! The arguments of a call of a script: records, and the counters and limits that they name by
//! number.

use super::distinct::Distinct;
use super::encoded::EncodedLimit;
use crate::domain::Key;
use crate::redis::resp;
use crate::store::StoreError;

/// The keys and the arguments of one call.
#[derive(Debug, Default)]
pub(super) struct Arguments {
    pub(super) records: Vec<u8>,
    /// The keys of the counters, by slot.
    keys: Distinct,
    limits: Distinct,
}

impl Arguments {
    /// The numbers of a counter and of a limit.
    ///
    /// # Errors
    /// More than 65 535 of one of them.
    pub(super) fn numbers_of(
        &mut self,
        key: &Key,
        limit: &EncodedLimit,
    ) -> Result<(u16, u16), StoreError> {
        let slot = self.number_of(key);
        let limit = self.limits.number_of(limit.as_bytes());
        let rejected = || StoreError::Rejected("more than 65535 counters in one call".to_owned());
        slot.zip(limit).ok_or_else(rejected)
    }

    /// The number of a key; none if there are 65 535 others.
    pub(super) fn number_of(&mut self, key: &Key) -> Option<u16> {
        self.keys.number_of(key.as_bytes())
    }

    /// Removes all.
    pub(super) fn clear(&mut self) {
        self.records.clear();
        self.keys.clear();
        self.limits.clear();
    }

    /// The distinct keys, in the order of their slots.
    pub(super) fn keys(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.keys.iter()
    }

    /// `ARGV[1]` and `ARGV[2]`.
    pub(super) fn args(&self) -> [&[u8]; 2] {
        [&self.records, self.limits.joined()]
    }

    /// Writes the command `command`, which runs `script`, to `out`.
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
