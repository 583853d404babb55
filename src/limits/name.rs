//! Names of clients: a domain and a packed descriptor, and the key of the client's record.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The name of a client: a descriptor of a domain.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct ClientName {
    /// The domain.
    pub domain: Arc<str>,
    /// The entries of the descriptor, complete and in order.
    pub entries: Entries,
}

/// The entries of a descriptor, in order, in one allocation. Each key and each value is its length
/// as a varint (LEB128), then its bytes.
#[derive(Clone, Default, Eq, Hash, PartialEq)]
pub struct Entries(Box<[u8]>);

impl Entries {
    /// Iterates over keys and values as UTF-8 bytes.
    pub fn iter(&self) -> EntriesIter<'_> {
        EntriesIter(&self.0)
    }

    /// Iterates over keys and values as text.
    pub fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        // Packed parts are always UTF-8.
        let text = |part| std::str::from_utf8(part).unwrap_or_default();
        self.iter().map(move |(key, value)| (text(key), text(value)))
    }
}

impl<K: AsRef<str>, V: AsRef<str>> FromIterator<(K, V)> for Entries {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut packed = Vec::new();
        for (key, value) in entries {
            pack(&mut packed, key.as_ref());
            pack(&mut packed, value.as_ref());
        }
        Self(packed.into())
    }
}

impl<'a> IntoIterator for &'a Entries {
    type Item = (&'a [u8], &'a [u8]);
    type IntoIter = EntriesIter<'a>;

    fn into_iter(self) -> EntriesIter<'a> {
        self.iter()
    }
}

impl fmt::Debug for Entries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.texts()).finish()
    }
}

/// The order of the parts, compared one by one.
impl Ord for Entries {
    fn cmp(&self, other: &Self) -> Ordering {
        self.iter().cmp(other.iter())
    }
}

impl PartialOrd for Entries {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Written as a list of pairs.
impl Serialize for Entries {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.texts())
    }
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(Vec::<(String, String)>::deserialize(from)?.into_iter().collect())
    }
}

/// An iterator over the entries of a descriptor.
#[derive(Clone, Debug)]
pub struct EntriesIter<'a>(&'a [u8]);

impl<'a> Iterator for EntriesIter<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (key, rest) = unpack(self.0)?;
        let (value, rest) = unpack(rest)?;
        self.0 = rest;
        Some((key, value))
    }
}

fn pack(packed: &mut Vec<u8>, part: &str) {
    let mut length = part.len();
    while length >= 0x80 {
        packed.push(0x80 | (length & 0x7f) as u8);
        length >>= 7;
    }
    packed.push(length as u8);
    packed.extend_from_slice(part.as_bytes());
}

/// Splits off the first part; returns it and the rest.
fn unpack(mut packed: &[u8]) -> Option<(&[u8], &[u8])> {
    let (mut length, mut shift) = (0_usize, 0_u32);
    loop {
        let (byte, rest) = packed.split_first()?;
        packed = rest;
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            return packed.split_at_checked(length);
        }
    }
}

impl ClientName {
    /// The key of the client's record. Keys sort like names, and different names have different
    /// keys.
    pub fn record_key(&self) -> Bytes {
        let mut key = RECORD_PREFIX.to_vec();
        write_part(&mut key, self.domain.as_bytes());
        for (name, value) in &self.entries {
            write_part(&mut key, name);
            write_part(&mut key, value);
        }
        key.into()
    }

    /// Parses the key of a record; the inverse of [`record_key`](Self::record_key).
    pub fn from_record_key(key: &[u8]) -> Option<Self> {
        let mut rest = key.strip_prefix(RECORD_PREFIX)?;
        let mut parts = Vec::new();
        while !rest.is_empty() {
            let (part, after) = read_part(rest)?;
            parts.push(String::from_utf8(part).ok()?);
            rest = after;
        }
        let mut parts = parts.into_iter();
        let domain = parts.next()?.into();
        let mut entries = Vec::new();
        while let Some(name) = parts.next() {
            entries.push((name, parts.next()?));
        }
        Some(Self { domain, entries: entries.into_iter().collect() })
    }
}

/// Writes a part and its terminator, two zero bytes. A zero byte within the part is escaped as 0,
/// 255, which sorts after the terminator.
fn write_part(key: &mut Vec<u8>, part: &[u8]) {
    for &byte in part {
        key.push(byte);
        if byte == 0 {
            key.push(0xff);
        }
    }
    key.extend_from_slice(&[0, 0]);
}

/// Splits off and unescapes the first part; returns it and the rest.
fn read_part(key: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut part = Vec::new();
    let mut rest = key;
    loop {
        match rest {
            [0, 0, after @ ..] => return Some((part, after)),
            [0, 0xff, after @ ..] => {
                part.push(0);
                rest = after;
            }
            [0, ..] | [] => return None,
            [byte, after @ ..] => {
                part.push(*byte);
                rest = after;
            }
        }
    }
}

/// The prefix of the keys of all clients' records.
pub const RECORD_PREFIX: &[u8] = b"client/";

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(pairs: &[(&str, &str)]) -> Entries {
        pairs.iter().copied().collect()
    }

    #[test]
    fn entries_are_read_back_whatever_their_length() {
        for length in [0, 1, 127, 128, 129, 16_383, 16_384, 70_000] {
            let (key, value) = ("k".repeat(length), "é".repeat(length));
            let packed = entries(&[(&key, &value), ("", ""), ("a\0", "b")]);
            let texts: Vec<_> = packed.texts().collect();
            assert_eq!(texts, [(&*key, &*value), ("", ""), ("a\0", "b")]);
        }
        assert_eq!(Entries::default().iter().next(), None);
    }

    #[test]
    fn entries_are_ordered_as_their_pairs_and_written_as_lists() {
        let long = "b".repeat(200);
        let mut pairs: Vec<Vec<(&str, &str)>> = vec![
            vec![],
            vec![("a", "")],
            vec![("a", "z")],
            vec![("a", "z"), ("a", "a")],
            vec![("b", &long)],
            vec![("bb", "a")],
        ];
        pairs.reverse();
        let mut packed: Vec<_> = pairs.iter().map(|pairs| entries(pairs)).collect();
        pairs.sort();
        packed.sort();
        assert_eq!(packed, pairs.iter().map(|pairs| entries(pairs)).collect::<Vec<_>>());
        let text = serde_json::to_string(&entries(&[("k", "v\"")])).unwrap();
        assert_eq!(text, r#"[["k","v\""]]"#);
        assert_eq!(serde_json::from_str::<Entries>(&text).unwrap(), entries(&[("k", "v\"")]));
    }

    fn name(domain: &str, value: &str) -> ClientName {
        ClientName { domain: domain.into(), entries: entries(&[("key", value)]) }
    }

    #[test]
    fn record_keys_are_ordered_as_names_and_read_back() {
        let mut names = vec![
            name("d", "a"),
            name("d", "a\0b"),
            name("d", "a\0"),
            name("d", ""),
            name("d\0", "a"),
            name("da", "a"),
            ClientName { domain: "d".into(), entries: entries(&[("key", "a"), ("b", "c")]) },
        ];
        for name in &names {
            assert_eq!(ClientName::from_record_key(&name.record_key()).as_ref(), Some(name));
        }
        let mut keys: Vec<_> = names.iter().map(ClientName::record_key).collect();
        keys.sort();
        names.sort();
        assert_eq!(keys, names.iter().map(ClientName::record_key).collect::<Vec<_>>());
    }
}
