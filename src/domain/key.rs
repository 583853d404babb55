//! The name of a counter, and the slot of a Redis Cluster in which it lives.

use std::fmt;
use std::sync::Arc;

/// The number of slots of a Redis Cluster.
pub const SLOTS: u16 = 1 << 14;

/// The name of a counter, the same in every store: bytes, usually readable text. Copies share them.
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Key(Arc<[u8]>);

impl Key {
    /// Makes a key of these bytes.
    pub fn new(bytes: impl Into<Arc<[u8]>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes of the key, as a store writes them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The slot of the key in a Redis Cluster, less than [`SLOTS`]. Keys of one hash tag have one
    /// slot.
    ///
    /// Source: <https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/>
    pub fn slot(&self) -> u16 {
        crc16(self.tag()) % SLOTS
    }

    /// The bytes between the first `{` and the next `}`; the whole key if there are none.
    fn tag(&self) -> &[u8] {
        let tag = || {
            let open = self.0.iter().position(|byte| *byte == b'{')?;
            let rest = self.0.get(open + 1..)?;
            let close = rest.iter().position(|byte| *byte == b'}')?;
            rest.get(..close).filter(|tag| !tag.is_empty())
        };
        tag().unwrap_or(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.0.escape_ascii())
    }
}

/// CRC-16/XMODEM: polynomial 0x1021, initial value 0, nothing reflected.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        let index = usize::from(crc >> 8 ^ u16::from(*byte));
        crc << 8 ^ CRC16.get(index).copied().unwrap_or_default()
    })
}

/// The remainders of all bytes.
const CRC16: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < table.len() {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 };
            bit += 1;
        }
        #[expect(clippy::indexing_slicing, reason = "evaluated when compiled, within the bounds")]
        {
            table[byte] = crc;
        }
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_has_the_check_value_of_its_definition() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
    }

    /// The store tests compare slots with those of a running Redis.
    #[test]
    fn hash_tag_alone_decides_the_slot() {
        let slot = |key: &[u8]| Key::new(key).slot();
        assert_eq!((slot(b"123456789"), slot(b"foo")), (0x31c3, 12_182));
        for key in ["{foo}", "a{foo}b", "{foo}{bar}", "x{foo}}"] {
            assert_eq!(slot(key.as_bytes()), slot(b"foo"), "{key}");
        }
        for key in ["{}foo", "{foo", "}foo{", "foo{}{bar}"] {
            assert_eq!(slot(key.as_bytes()), crc16(key.as_bytes()) % SLOTS, "{key}");
        }
    }
}
