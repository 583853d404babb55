//! Fields of protobuf messages, read from and written to bytes without a tree of messages.
//!
//! The length of a nested message precedes it, but is known only after it is written. A writer
//! reserves one byte for it, and moves the message if the length needs more.
//!
//! Source: the protobuf encoding guide.

use prost::encoding::{encode_varint, encoded_len_varint};

/// The fields of a message that are not read yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unread<'a>(pub(super) &'a [u8]);

impl<'a> Unread<'a> {
    /// True at the end of the message.
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A varint; none: it is not valid.
    #[inline]
    pub(super) fn varint(&mut self) -> Option<u64> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        if first < 0x80 { Some(first.into()) } else { self.long_varint(first) }
    }

    /// The rest of a varint whose first byte was `first`.
    fn long_varint(&mut self, first: u8) -> Option<u64> {
        let mut value = u64::from(first & 0x7f);
        for shift in (7..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                // Of the tenth byte one bit counts.
                return (shift < 63 || byte < 2).then_some(value);
            }
        }
        None
    }

    /// The content of a field with a length; none: it is not there.
    #[inline]
    pub(super) fn content(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.varint()?).ok()?;
        let (content, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(content)
    }

    /// Skips a field of an unknown number, above `last_known`. None: it is known and has another
    /// type, or is not valid, or is a group.
    pub(super) fn skip(&mut self, key: u64, last_known: u64) -> Option<()> {
        let is_unknown = key >> 3 > last_known && key <= u32::MAX.into();
        match key & 7 {
            _ if !is_unknown => return None,
            0 => _ = self.varint()?,
            1 => self.0 = self.0.get(8..)?,
            2 => _ = self.content()?,
            5 => self.0 = self.0.get(4..)?,
            _ => return None,
        }
        Some(())
    }
}

/// Writes a varint.
#[inline]
pub(super) fn varint(out: &mut Vec<u8>, value: u64) {
    if value < 0x80 { out.push(value as u8) } else { encode_varint(value, out) }
}

/// Writes a field whose value is a number; 0 is not written.
#[inline]
pub(super) fn number(out: &mut Vec<u8>, key: u8, value: u64) {
    if value != 0 {
        out.push(key);
        varint(out, value);
    }
}

/// Writes a field with this content.
#[inline]
pub(super) fn content(out: &mut Vec<u8>, key: u8, content: &[u8]) {
    out.push(key);
    varint(out, content.len() as u64);
    out.extend_from_slice(content);
}

/// Writes a field with a length; `write` appends its content.
#[inline]
pub(super) fn nested(out: &mut Vec<u8>, key: u8, write: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(&[key, 0]);
    let start = out.len();
    write(out);
    close(out, start);
}

/// Writes the length of the content from `start` on to the byte before it.
#[inline]
pub(super) fn close(out: &mut Vec<u8>, start: usize) {
    let length = out.len().wrapping_sub(start);
    match out.get_mut(start.wrapping_sub(1)) {
        Some(place) if length < 0x80 => *place = length as u8,
        _ => write_length(out, start, length),
    }
}

/// Moves the content from `start` on, of this length, and writes the length before it.
#[expect(clippy::indexing_slicing, reason = "the byte before `start` was pushed for the length")]
fn write_length(out: &mut Vec<u8>, start: usize, length: usize) {
    let width = encoded_len_varint(length as u64);
    let end = out.len();
    out.resize(end + width - 1, 0);
    out.copy_within(start..end, start + width - 1);
    encode_varint(length as u64, &mut &mut out[start - 1..start - 1 + width]);
}

#[cfg(test)]
mod tests {
    use prost::encoding::decode_varint;

    use super::*;

    #[test]
    fn varints_are_those_of_prost() {
        let edges = (0..64).flat_map(|bit| [(1_u64 << bit) - 1, 1 << bit, (1 << bit) + 1]);
        for value in edges.chain([u64::MAX]) {
            let mut bytes = Vec::new();
            varint(&mut bytes, value);
            let mut unread = Unread(&bytes);
            assert_eq!(unread.varint(), Some(value));
            assert!(unread.is_empty(), "{value}");
            // Longer than need be, cut, and with more bits than 64.
            for (at, last) in [(bytes.len() - 1, 0x80), (bytes.len() - 1, 0xff)] {
                let mut changed = bytes.clone();
                changed[at] |= last;
                for end in [&[][..], &[0], &[1], &[2], &[0x80; 9], &[0x80, 1], &[0xff; 10]] {
                    let long = [&changed, end].concat();
                    let theirs = decode_varint(&mut long.as_slice()).ok();
                    assert_eq!(Unread(&long).varint(), theirs, "{long:02x?}");
                }
            }
        }
    }

    #[test]
    fn nested_content_of_any_length_is_read_back() {
        for length in [0, 1, 127, 128, 16_383, 16_384, 300_000] {
            let mut out = vec![7];
            nested(&mut out, 0x0a, |out| out.resize(out.len() + length, 9));
            content(&mut out, 0x12, b"next");
            let mut unread = Unread(&out[1..]);
            assert_eq!(unread.varint(), Some(0x0a));
            assert_eq!(unread.content(), Some(&*vec![9; length]));
            assert_eq!((unread.varint(), unread.content()), (Some(0x12), Some(&b"next"[..])));
        }
    }
}
