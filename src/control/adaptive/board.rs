//! The signals of a second, as replicas post and read them.
//!
//! A post has the signals since the post before it. One that comes after the others were read
//! counts for the next second.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::adaptive::Second;
use crate::control::registry::{Registry, RegistryError};

/// The signals of rules by their numbers.
pub(super) type Signals = BTreeMap<u32, Second>;

/// The seconds for which late posts count.
const LATE: u64 = 2;

/// A post: for each rule its number, then what was seen.
pub(super) fn written(signals: &[(u32, Second)]) -> Bytes {
    let mut bytes = Vec::new();
    for (rule, second) in signals.iter().filter(|(_, second)| !second.is_empty()) {
        bytes.extend_from_slice(&rule.to_be_bytes());
        second.write(&mut bytes);
    }
    bytes.into()
}

/// Adds what a post says, up to where it cannot be read.
fn merge(into: &mut Signals, mut post: &[u8]) {
    while let Some((rule, rest)) = post.split_first_chunk() {
        post = rest;
        let Some(second) = Second::read(&mut post) else { return };
        into.entry(u32::from_be_bytes(*rule)).or_default().merge(&second);
    }
}

/// The posts that were read.
#[derive(Debug, Default)]
pub(super) struct Board {
    /// By second and process.
    read: BTreeSet<(u64, u128)>,
}

impl Board {
    /// The signals of a second, with those of the seconds before it that came late.
    pub(super) async fn read<R: Registry>(
        &mut self,
        registry: &R,
        second: u64,
    ) -> Result<Signals, RegistryError> {
        let mut signals = Signals::new();
        let oldest = second.saturating_sub(LATE);
        self.read.retain(|(read, _)| *read >= oldest);
        for second in oldest..=second {
            for (process, post) in registry.posts(second).await? {
                if self.read.insert((second, process)) {
                    merge(&mut signals, &post);
                }
            }
        }
        Ok(signals)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(admitted: u64) -> Second {
        Second { admitted, ..Second::default() }
    }

    #[test]
    fn posts_are_added_up_and_damage_ends_one_alone() {
        let mut signals = Signals::new();
        let whole = written(&[(7, second(1)), (u32::MAX, second(300)), (8, second(0))]);
        merge(&mut signals, &whole);
        merge(&mut signals, &whole);
        merge(&mut signals, whole.get(..whole.len() - 1).unwrap());
        merge(&mut signals, b"not a post");
        let found: Vec<_> = signals.iter().map(|(rule, second)| (*rule, second.admitted)).collect();
        assert_eq!(found, [(7, 3), (u32::MAX, 600)]);
    }
}
