//! Header blocks: that of all requests, and those of answers (HPACK, RFC 7541).
//!
//! The client asks for answers without a dynamic table, so equal blocks have equal meanings, and
//! the few blocks that a service sends are decoded once.

use tollgate::http2::hpack::{Decoder, Invalid};

use super::Fault;

const PATH: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";

/// Blocks that are known by their bytes.
const KNOWN: usize = 8;

// Entries of the static table.
const AUTHORITY: u8 = 1;
const METHOD_POST: u8 = 3;
const PATH_NAME: u8 = 4;
const SCHEME_HTTP: u8 = 6;
const SCHEME_HTTPS: u8 = 7;
const CONTENT_TYPE: u8 = 31;
const USER_AGENT: u8 = 58;

/// The parts of a header block of an answer that matter.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Head {
    /// `:status`.
    pub(super) http: Option<u16>,
    /// `grpc-status`.
    pub(super) grpc: Option<u32>,
}

/// The header block of a request.
pub(super) fn request(scheme: &str, authority: &str) -> Vec<u8> {
    let scheme = if scheme == "https" { SCHEME_HTTPS } else { SCHEME_HTTP };
    let mut block = vec![0x80 | METHOD_POST, 0x80 | scheme];
    put_literal(&mut block, PATH_NAME, PATH);
    put_literal(&mut block, AUTHORITY, authority);
    put_literal(&mut block, CONTENT_TYPE, "application/grpc");
    // The name is not in the table.
    block.push(0);
    put_text(&mut block, "te");
    put_text(&mut block, "trailers");
    put_literal(&mut block, USER_AGENT, concat!("tollgate-load/", env!("CARGO_PKG_VERSION")));
    block
}

/// A literal without indexing; its name is in the static table.
fn put_literal(block: &mut Vec<u8>, name: u8, value: &str) {
    put_number(block, 4, name.into());
    put_text(block, value);
}

fn put_text(block: &mut Vec<u8>, text: &str) {
    put_number(block, 7, text.len());
    block.extend_from_slice(text.as_bytes());
}

/// A number whose first byte has so many bits for it, and zeroes above (RFC 7541, 5.1).
fn put_number(block: &mut Vec<u8>, bits: u32, number: usize) {
    let most = (1_usize << bits) - 1;
    if number < most {
        return block.push(number as u8);
    }
    block.push(most as u8);
    let mut rest = number - most;
    while rest >= 0x80 {
        block.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    block.push(rest as u8);
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
    fn request_has_the_headers_of_grpc() {
        for (scheme, authority) in
            [("http", "127.0.0.1:8081".to_owned()), ("https", "a".repeat(300))]
        {
            let mut fields = Vec::new();
            let block = request(scheme, &authority);
            let field = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            let decoded = Decoder::default()
                .decode(&block, |name, value| fields.push((field(name), field(value))));
            decoded.unwrap();
            let agent = concat!("tollgate-load/", env!("CARGO_PKG_VERSION"));
            let expected = [
                (":method", "POST"),
                (":scheme", scheme),
                (":path", "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"),
                (":authority", &authority),
                ("content-type", "application/grpc"),
                ("te", "trailers"),
                ("user-agent", agent),
            ];
            assert_eq!(fields, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        }
    }

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
