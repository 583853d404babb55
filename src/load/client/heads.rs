//! Header blocks of answers (HPACK, RFC 7541).
//!
//! The client asks for answers without a dynamic table, so equal blocks have equal meanings, and
//! the few blocks that a service sends are decoded once.

use tollgate::http2::hpack::{Decoder, Invalid};

use super::Fault;

/// Blocks that are known by their bytes.
const KNOWN: usize = 8;

/// The parts of a header block of an answer that matter.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Head {
    /// `:status`.
    pub(super) http: Option<u16>,
    /// `grpc-status`.
    pub(super) grpc: Option<u32>,
}

/// The blocks of one session.
#[derive(Debug, Default)]
pub(super) struct Heads {
    decoder: Decoder,
    /// The version of the table of the known blocks.
    version: u64,
    known: Vec<(Box<[u8]>, Head)>,
    oldest: usize,
}

impl Heads {
    /// Reads a block.
    pub(super) fn read(&mut self, block: &[u8]) -> Result<Head, Fault> {
        if let Some((_, head)) = self.known.iter().find(|(known, _)| **known == *block) {
            return Ok(*head);
        }
        let mut head = Head::default();
        let decoded = self.decoder.decode(block, |name, value| head.add(name, value));
        decoded.map_err(|Invalid| Fault::Protocol("headers that are not HPACK"))?;
        if self.decoder.version() != self.version {
            self.version = self.decoder.version();
            self.known.clear();
        } else if self.known.len() < KNOWN {
            self.known.push((block.into(), head));
        } else if let Some(oldest) = self.known.get_mut(self.oldest) {
            *oldest = (block.into(), head);
            self.oldest = (self.oldest + 1) % KNOWN;
        }
        Ok(head)
    }
}

impl Head {
    fn add(&mut self, name: &[u8], value: &[u8]) {
        let value = || std::str::from_utf8(value).ok();
        match name {
            b":status" => self.http = value().and_then(|status| status.parse().ok()),
            b"grpc-status" => self.grpc = value().and_then(|status| status.parse().ok()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_means_what_the_table_says_at_the_time() {
        let mut heads = Heads::default();
        let grpc = |grpc| Ok(Head { http: None, grpc: Some(grpc) });
        // The first dynamic entry, added twice.
        assert_eq!(heads.read(b"\x40\x0bgrpc-status\x010"), grpc(0));
        assert_eq!(heads.read(b"\xbe"), grpc(0));
        assert_eq!(heads.read(b"\xbe"), grpc(0));
        assert_eq!(heads.read(b"\x40\x0bgrpc-status\x018"), grpc(8));
        assert_eq!(heads.read(b"\xbe"), grpc(8));
        for status in 0..=2 * KNOWN as u32 {
            let status = status % (KNOWN as u32 + 2);
            let text = status.to_string();
            let block = [b"\x00\x0bgrpc-status", &[text.len() as u8][..], text.as_bytes()].concat();
            assert_eq!(heads.read(&block), grpc(status));
        }
        assert_eq!(heads.read(b"\x88"), Ok(Head { http: Some(200), grpc: None }));
        assert!(heads.read(b"\xff").is_err());
    }
}
