//! Names of clients: a domain and a packed descriptor, and the key of the client's record.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::{self, MapAccess, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The name of a client: a descriptor of a domain.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct ClientName {
    /// The domain.
    pub domain: Arc<str>,
    /// The entries of the descriptor, complete and in order.
    pub entries: Entries,
}

/// The length of the hash of a sensitive value, in hexadecimal digits.
pub const HASH_DIGITS: usize = 32;

/// A value of a descriptor, as a name has it. A hash equals no clear value, whatever that looks
/// like.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Value<'a> {
    /// The value, UTF-8; or the hash of a sensitive one.
    pub bytes: &'a [u8],
    /// It is a hash.
    pub hashed: bool,
}

impl<'a> Value<'a> {
    /// A value as requests have it.
    pub const fn clear(bytes: &'a [u8]) -> Self {
        Self { bytes, hashed: false }
    }

    /// Its text.
    pub fn text(&self) -> &'a str {
        // It was text when it was packed.
        std::str::from_utf8(self.bytes).unwrap_or_default()
    }
}

/// The entries of a descriptor, in order, in one allocation. Each key is its length as a varint
/// (LEB128), then its bytes. Each value is twice its length, plus one when it is a hash, and its
/// bytes.
#[derive(Clone, Default, Eq, Hash, PartialEq)]
pub struct Entries(Box<[u8]>);

impl Entries {
    /// Iterates over keys and values as UTF-8 bytes.
    pub fn iter(&self) -> EntriesIter<'_> {
        EntriesIter(&self.0)
    }

    /// Key and value of each, hashes as if they were values.
    pub fn pairs(&self) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
        self.iter().map(|(key, value)| (key, value.bytes))
    }

    /// Key and value of each, the key as text.
    pub fn texts(&self) -> impl Iterator<Item = (&str, Value<'_>)> {
        self.iter().map(|(key, value)| (Value::clear(key).text(), value))
    }

    /// It has values that are hashes.
    pub fn has_hashes(&self) -> bool {
        self.iter().any(|(_, value)| value.hashed)
    }

    /// Entries of these keys and values.
    pub fn of<'e>(entries: impl IntoIterator<Item = (&'e [u8], Value<'e>)>) -> Self {
        let mut packed = Vec::new();
        for (key, value) in entries {
            pack(&mut packed, key.len(), key);
            pack(&mut packed, value.bytes.len() << 1 | usize::from(value.hashed), value.bytes);
        }
        Self(packed.into())
    }
}

impl<'a> IntoIterator for &'a Entries {
    type Item = (&'a [u8], Value<'a>);
    type IntoIter = EntriesIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<K: AsRef<str>, V: AsRef<str>> FromIterator<(K, V)> for Entries {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let entries: Vec<(K, V)> = entries.into_iter().collect();
        Self::of(
            entries.iter().map(|(key, value)| {
                (key.as_ref().as_bytes(), Value::clear(value.as_ref().as_bytes()))
            }),
        )
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

/// As a list of pairs; a hash as `{"hash": ".."}`.
impl Serialize for Entries {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.texts())
    }
}

impl Serialize for Value<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if !self.hashed {
            return to.serialize_str(self.text());
        }
        let mut map = to.serialize_map(Some(1))?;
        map.serialize_entry(HASH, self.text())?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let entries = Vec::<(String, OwnedValue)>::deserialize(from)?;
        Ok(Self::of(entries.iter().map(|(key, value)| {
            let value = Value { bytes: value.text.as_bytes(), hashed: value.hashed };
            (key.as_bytes(), value)
        })))
    }
}

/// The field of a hash in a record.
const HASH: &str = "hash";

/// A [`Value`] of its own.
struct OwnedValue {
    text: String,
    hashed: bool,
}

impl<'de> Deserialize<'de> for OwnedValue {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = OwnedValue;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value or a hash")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<OwnedValue, E> {
                Ok(OwnedValue { text: text.to_owned(), hashed: false })
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<OwnedValue, A::Error> {
                match map.next_entry::<String, String>()? {
                    Some((field, text)) if field == HASH => Ok(OwnedValue { text, hashed: true }),
                    _ => Err(de::Error::custom("a value is a text or a hash")),
                }
            }
        }

        from.deserialize_any(Either)
    }
}

/// An iterator over the entries of a descriptor.
#[derive(Clone, Debug)]
pub struct EntriesIter<'a>(&'a [u8]);

impl<'a> Iterator for EntriesIter<'a> {
    type Item = (&'a [u8], Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let (length, rest) = unpack(self.0)?;
        let (key, rest) = rest.split_at_checked(length)?;
        let (length, rest) = unpack(rest)?;
        let (bytes, rest) = rest.split_at_checked(length >> 1)?;
        self.0 = rest;
        Some((key, Value { bytes, hashed: length & 1 == 1 }))
    }
}

/// Writes a number, and a part.
fn pack(packed: &mut Vec<u8>, mut length: usize, part: &[u8]) {
    while length >= 0x80 {
        packed.push(0x80 | (length & 0x7f) as u8);
        length >>= 7;
    }
    packed.push(length as u8);
    packed.extend_from_slice(part);
}

/// The first number, and what comes after it.
fn unpack(mut packed: &[u8]) -> Option<(usize, &[u8])> {
    let (mut length, mut shift) = (0_usize, 0_u32);
    loop {
        let (byte, rest) = packed.split_first()?;
        packed = rest;
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            return Some((length, packed));
        }
    }
}

impl ClientName {
    /// The key of the client's record. Keys sort like names, and different names have different
    /// keys.
    pub fn record_key(&self) -> Bytes {
        let mut key = RECORD_PREFIX.to_vec();
        write_part(&mut key, Value::clear(self.domain.as_bytes()));
        for (name, value) in &self.entries {
            write_part(&mut key, Value::clear(name));
            write_part(&mut key, value);
        }
        key.into()
    }

    /// Parses the key of a record; the inverse of [`record_key`](Self::record_key).
    pub fn from_record_key(key: &[u8]) -> Option<Self> {
        let mut rest = key.strip_prefix(RECORD_PREFIX)?;
        let mut parts = Vec::new();
        while !rest.is_empty() {
            let (text, hashed, after) = read_part(rest)?;
            parts.push(OwnedValue { text: String::from_utf8(text).ok()?, hashed });
            rest = after;
        }
        let (domain, pairs) = parts.split_first().filter(|(domain, _)| !domain.hashed)?;
        let (pairs, []) = pairs.as_chunks::<2>() else { return None };
        if pairs.iter().any(|[name, _]| name.hashed) {
            return None;
        }
        let entries = Entries::of(pairs.iter().map(|[name, value]| {
            let value = Value { bytes: value.text.as_bytes(), hashed: value.hashed };
            (name.text.as_bytes(), value)
        }));
        Some(Self { domain: domain.text.as_str().into(), entries })
    }
}

/// A part ends in a zero byte, and another one, or where it is a hash, a one. A zero byte within it
/// is followed by 255, which sorts after these ends.
fn write_part(key: &mut Vec<u8>, part: Value<'_>) {
    for &byte in part.bytes {
        key.push(byte);
        if byte == 0 {
            key.push(0xff);
        }
    }
    key.extend_from_slice(&[0, u8::from(part.hashed)]);
}

/// The first part, whether it is a hash, and what comes after it.
fn read_part(key: &[u8]) -> Option<(Vec<u8>, bool, &[u8])> {
    let mut part = Vec::new();
    let mut rest = key;
    loop {
        match rest {
            [0, end @ (0 | 1), after @ ..] => return Some((part, *end == 1, after)),
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
mod tests;
