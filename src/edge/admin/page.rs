//! Page tokens: where a list goes on, opaque to callers.
//!
//! ```text
//! hexadecimal of: version (1) | revision of the first page (8, big endian) | record key of the
//! last client or plan
//! ```

use bytes::Bytes;

use crate::limits::{ClientName, PlanKey};

const VERSION: u8 = 1;

/// The name of something that is listed, and the key of its record.
pub trait Named: Sized {
    /// The key of its record.
    fn record_key(&self) -> Bytes;

    /// Parses the key of a record; the inverse of [`record_key`](Self::record_key).
    fn from_record_key(key: &[u8]) -> Option<Self>;
}

impl Named for ClientName {
    fn record_key(&self) -> Bytes {
        self.record_key()
    }

    fn from_record_key(key: &[u8]) -> Option<Self> {
        Self::from_record_key(key)
    }
}

impl Named for PlanKey {
    fn record_key(&self) -> Bytes {
        self.record_key()
    }

    fn from_record_key(key: &[u8]) -> Option<Self> {
        Self::from_record_key(key)
    }
}

/// The place at which a list goes on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PageToken<N = ClientName> {
    /// The revision that the first page showed.
    pub revision: u64,
    /// The last one told.
    pub after: N,
}

impl<N: Named> PageToken<N> {
    /// The text of the token.
    pub fn write(&self) -> String {
        use std::fmt::Write as _;

        let key = self.after.record_key();
        let mut text = String::with_capacity(18 + 2 * key.len());
        let bytes = [VERSION].into_iter().chain(self.revision.to_be_bytes()).chain(key);
        for byte in bytes {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        text
    }

    /// Reads the text of a token. None: not a token of this version.
    pub fn read(text: &str) -> Option<Self> {
        let bytes = unhex(text)?;
        let (version, rest) = bytes.split_first()?;
        let (revision, key) = rest.split_first_chunk()?;
        let revision = u64::from_be_bytes(*revision);
        let after = N::from_record_key(key).filter(|_| *version == VERSION)?;
        Some(Self { revision, after })
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let pair = |pair: &[u8]| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    };
    text.as_bytes().chunks(2).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_back_and_others_refused() {
        let after =
            ClientName { domain: "dé".into(), entries: [("k", "v\0")].into_iter().collect() };
        let token = PageToken { revision: u64::MAX - 1, after };
        let text = token.write();
        assert_eq!(PageToken::read(&text), Some(token));
        for bad in
            ["", "0", "01", "zz", "é", &text[1..], &text[..30], &text.replacen("01", "02", 1)]
        {
            assert_eq!(PageToken::<ClientName>::read(bad), None, "{bad}");
        }
        assert_eq!(PageToken::<PlanKey>::read(&text), None, "of a list of clients");
        let plan = PlanKey { domain: "dé".into(), name: "gold".into() };
        let token = PageToken { revision: 7, after: plan };
        assert_eq!(PageToken::read(&token.write()), Some(token));
    }
}
