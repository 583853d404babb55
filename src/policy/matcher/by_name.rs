//! Nodes by the bytes that lead to them. A few are compared one by one, which costs a decision less
//! than a hash.

use std::mem;

use hashbrown::HashMap;

/// The most that are compared one by one.
const FEW: usize = 4;

/// Values by name.
#[derive(Debug)]
pub(super) struct ByName<V> {
    /// All of them, as long as they are few.
    few: Vec<(Box<[u8]>, V)>,
    /// All of them, once they are many.
    many: HashMap<Box<[u8]>, V>,
}

impl<V> Default for ByName<V> {
    fn default() -> Self {
        Self { few: Vec::new(), many: HashMap::new() }
    }
}

impl<V> ByName<V> {
    pub(super) fn is_empty(&self) -> bool {
        self.few.is_empty() && self.many.is_empty()
    }

    pub(super) fn get(&self, name: &[u8]) -> Option<&V> {
        if self.many.is_empty() {
            let mut few = self.few.iter();
            return few.find(|(known, _)| **known == *name).map(|(_, value)| value);
        }
        self.many.get(name)
    }

    /// The value of `name`, a new one if it has none.
    pub(super) fn get_or_default(&mut self, name: &[u8]) -> &mut V
    where
        V: Default,
    {
        if self.get(name).is_none() {
            self.insert(name, V::default());
        }
        let few = self.few.iter_mut().find(|(known, _)| **known == *name);
        match few {
            Some((_, value)) => value,
            None => self.many.entry(name.into()).or_default(),
        }
    }

    /// Gives `name` a value in place of the one that it has.
    pub(super) fn insert(&mut self, name: &[u8], value: V) {
        if let Some((_, known)) = self.few.iter_mut().find(|(known, _)| **known == *name) {
            *known = value;
        } else if self.many.is_empty() && self.few.len() < FEW {
            self.few.push((name.into(), value));
        } else {
            self.many.extend(mem::take(&mut self.few));
            self.many.insert(name.into(), value);
        }
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.few.iter().map(|(_, value)| value).chain(self.many.values())
    }

    pub(super) fn into_values(self) -> impl Iterator<Item = V> {
        self.few.into_iter().map(|(_, value)| value).chain(self.many.into_values())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_and_many_are_found_by_name() {
        let mut values = ByName::<usize>::default();
        assert!(values.is_empty() && values.get(b"").is_none());
        for count in 0..3 * FEW {
            let name = |number: usize| format!("name {number}").into_bytes();
            *values.get_or_default(&name(count)) += count;
            values.insert(&name(0), 7);
            assert!(!values.is_empty());
            for known in 1..=count {
                assert_eq!(values.get(&name(known)), Some(&known), "{count}");
                assert_eq!(values.get_or_default(&name(known)), &known);
            }
            assert_eq!((values.get(&name(0)), values.get(&name(count + 1))), (Some(&7), None));
            assert_eq!(values.values().count(), count + 1);
        }
        let mut all: Vec<usize> = values.into_values().collect();
        all.sort_unstable();
        assert_eq!(all, [1, 2, 3, 4, 5, 6, 7, 7, 8, 9, 10, 11]);
    }
}
