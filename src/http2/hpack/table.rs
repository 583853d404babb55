//! The static and the dynamic table of HPACK.
//!
//! Source: RFC 7541, sections 2.3, 4 and appendix A.

use std::collections::VecDeque;

/// The size of an entry beside its bytes.
pub const ENTRY_BYTES: usize = 32;

/// A name and a value.
pub(super) type Field<'a> = (&'a [u8], &'a [u8]);

/// Fields that a peer refers to by number.
#[derive(Debug)]
pub(super) struct Table {
    /// The newest first.
    entries: VecDeque<Entry>,
    size: usize,
    max: usize,
}

#[derive(Debug)]
pub(super) struct Entry {
    /// The name, then the value.
    bytes: Box<[u8]>,
    name: usize,
}

impl Entry {
    pub(super) fn new(name: &[u8], value: &[u8]) -> Self {
        Self { bytes: [name, value].concat().into(), name: name.len() }
    }

    fn size(&self) -> usize {
        self.bytes.len() + ENTRY_BYTES
    }

    fn field(&self) -> Option<Field<'_>> {
        self.bytes.split_at_checked(self.name)
    }
}

impl Table {
    /// With entries of `max` bytes together.
    pub(super) const fn new(max: usize) -> Self {
        Self { entries: VecDeque::new(), size: 0, max }
    }

    /// The field of this number; the first one has the number 1.
    pub(super) fn get(&self, index: usize) -> Option<Field<'_>> {
        let position = index.checked_sub(1)?;
        match STATIC.get(position) {
            Some((name, value)) => Some((name.as_bytes(), value.as_bytes())),
            None => self.entries.get(position - STATIC.len())?.field(),
        }
    }

    /// Adds an entry; the oldest ones go until it fits. One that never fits empties the table.
    pub(super) fn add(&mut self, entry: Entry) {
        let room = self.max.checked_sub(entry.size());
        self.shrink(room.unwrap_or_default());
        if room.is_some() {
            self.size += entry.size();
            self.entries.push_front(entry);
        }
    }

    /// Changes the bytes that entries may have together.
    pub(super) fn resize(&mut self, max: usize) {
        self.max = max;
        self.shrink(max);
    }

    fn shrink(&mut self, size: usize) {
        while self.size > size
            && let Some(oldest) = self.entries.pop_back()
        {
            self.size = self.size.saturating_sub(oldest.size());
        }
    }
}

const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: usize = STATIC.len() + 1;

    #[test]
    fn oldest_entries_make_room() {
        let mut table = Table::new(2 * (ENTRY_BYTES + 2));
        table.add(Entry::new(b"a", b"1"));
        table.add(Entry::new(b"b", b"2"));
        assert_eq!(table.get(FIRST + 1), Some((&b"a"[..], &b"1"[..])));
        table.add(Entry::new(b"c", b"3"));
        assert_eq!(table.get(FIRST), Some((&b"c"[..], &b"3"[..])));
        assert_eq!(table.get(FIRST + 1), Some((&b"b"[..], &b"2"[..])));
        assert_eq!(table.get(FIRST + 2), None);
        table.add(Entry::new(b"long", &[b'x'; 64]));
        assert_eq!((table.get(FIRST), table.size), (None, 0), "it never fits");
        table.add(Entry::new(b"a", b"1"));
        table.resize(ENTRY_BYTES + 1);
        assert_eq!(table.get(FIRST), None);
        table.add(Entry::new(b"", b""));
        assert_eq!(table.get(FIRST), Some((&b""[..], &b""[..])));
    }
}
