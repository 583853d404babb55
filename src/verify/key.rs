//! The key of a descriptor as text: `domain|key=value|key=value`.
//!
//! Bytes that do not print, and `%`, `,`, `|`, `=`, are percent-escaped, so that the text is one
//! field of a line and has one meaning.

/// A descriptor and its domain, as bytes of the request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Descriptor {
    /// The domain.
    pub domain: Vec<u8>,
    /// Keys and values, at least one pair.
    pub entries: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Descriptor {
    /// Reads a key; `None` if it is no key of a descriptor.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('|');
        let domain = unescape(parts.next()?)?;
        let entry = |part: &str| {
            let (key, value) = part.split_once('=')?;
            Some((unescape(key)?, unescape(value)?))
        };
        let entries: Vec<_> = parts.map(entry).collect::<Option<_>>()?;
        (!entries.is_empty()).then_some(Self { domain, entries })
    }

    /// Keys and values.
    pub fn pairs(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.entries.iter().map(|(key, value)| (&key[..], &value[..]))
    }
}

/// The key of a descriptor of these (key, value) entries.
pub fn key_of<'e>(
    domain: &[u8],
    entries: impl IntoIterator<Item = (&'e [u8], &'e [u8])>,
) -> String {
    let mut text = String::new();
    escape(&mut text, domain);
    for (key, value) in entries {
        text.push('|');
        escape(&mut text, key);
        text.push('=');
        escape(&mut text, value);
    }
    text
}

fn escape(text: &mut String, bytes: &[u8]) {
    use std::fmt::Write as _;
    for &byte in bytes {
        match byte {
            b'%' | b',' | b'|' | b'=' => _ = write!(text, "%{byte:02X}"),
            b' '..=b'~' => text.push(char::from(byte)),
            _ => _ = write!(text, "%{byte:02X}"),
        }
    }
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text);
    while let Some((before, after)) = rest.split_once('%') {
        bytes.extend_from_slice(before.as_bytes());
        bytes.push(u8::from_str_radix(after.get(..2)?, 16).ok()?);
        rest = after.get(2..)?;
    }
    bytes.extend_from_slice(rest.as_bytes());
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_they_are_written() {
        let entries: [(&[u8], &[u8]); 3] =
            [(b"user", b"alice"), (b"a|b", b"x=1,y%2"), (b"\xff", b"\nv ")];
        let text = key_of(b"edge", entries);
        assert_eq!(text, "edge|user=alice|a%7Cb=x%3D1%2Cy%252|%FF=%0Av ");
        let descriptor = Descriptor::parse(&text).unwrap();
        assert_eq!(descriptor.domain, b"edge");
        assert_eq!(descriptor.pairs().collect::<Vec<_>>(), entries);
        for text in ["", "edge", "edge|user", "edge|a=%2", "edge|a=%zz"] {
            assert_eq!(Descriptor::parse(text), None, "{text}");
        }
    }
}
