//! The header blocks of requests (HPACK, RFC 7541): the first of a connection puts its fields into
//! the peer's table, the others name them there, as the usual clients of gRPC do.

use tollgate::http2::hpack::{ENTRY_BYTES, NO_TABLE, TABLE_BYTES, write_field};

const PATH: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";
const AGENT: &str = concat!("tollgate-load/", env!("CARGO_PKG_VERSION"));

// Fields of the static table.
const METHOD_POST: u8 = 0x80 | 3;
const SCHEME_HTTP: u8 = 0x80 | 6;
const SCHEME_HTTPS: u8 = 0x80 | 7;

/// The first byte of a literal that the table keeps.
const KEPT: u8 = 0x40;
/// The first entry of the dynamic table.
const FIRST_DYNAMIC: u8 = 62;

/// The header blocks of the requests on one connection.
#[derive(Clone, Debug)]
pub(super) struct Requests {
    /// The block that needs no table, after the update that makes the table empty.
    literal: Vec<u8>,
    /// The block that fills the table.
    filling: Vec<u8>,
    /// The block after that.
    indexed: Vec<u8>,
    next: Next,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Next {
    Filling,
    Indexed,
    /// The literal one, after the table is made empty.
    Emptying,
    Literal,
}

impl Requests {
    /// The requests to the service at `authority`.
    pub(super) fn new(scheme: &str, authority: &str) -> Self {
        let scheme = if scheme == "https" { SCHEME_HTTPS } else { SCHEME_HTTP };
        let fields = [
            (":path", PATH),
            (":authority", authority),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("user-agent", AGENT),
        ];
        let begin = [METHOD_POST, scheme];
        let [mut filling, mut indexed] = [begin.to_vec(), begin.to_vec()];
        let mut literal = [NO_TABLE, &begin].concat();
        // The newest entry is the first of the table.
        for ((name, value), entry) in fields.iter().zip((FIRST_DYNAMIC..FIRST_DYNAMIC + 5).rev()) {
            let begins = filling.len();
            write_field(&mut literal, name.as_bytes(), value.as_bytes());
            write_field(&mut filling, name.as_bytes(), value.as_bytes());
            if let Some(kind) = filling.get_mut(begins) {
                *kind = KEPT;
            }
            indexed.push(0x80 | entry);
        }
        let bytes = fields.iter().map(|(name, value)| name.len() + value.len() + ENTRY_BYTES);
        let next = if bytes.sum::<usize>() > TABLE_BYTES { Next::Literal } else { Next::Filling };
        Self { literal, filling, indexed, next }
    }

    /// The block of the next request.
    pub(super) fn next(&mut self) -> &[u8] {
        match self.next {
            Next::Filling => {
                self.next = Next::Indexed;
                &self.filling
            }
            Next::Indexed => &self.indexed,
            Next::Emptying => {
                self.next = Next::Literal;
                &self.literal
            }
            Next::Literal => self.literal.strip_prefix(NO_TABLE).unwrap_or_default(),
        }
    }

    /// The peer wants a table of at most `bytes`. One that is smaller than usual is not used.
    pub(super) const fn limit_table(&mut self, bytes: u32) {
        if (bytes as usize) < TABLE_BYTES {
            self.next = Next::Emptying;
        }
    }
}

#[cfg(test)]
mod tests {
    use tollgate::http2::hpack::Decoder;

    use super::*;

    fn decoded(decoder: &mut Decoder, block: &[u8]) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let mut fields = Vec::new();
        decoder.decode(block, |name, value| fields.push((text(name), text(value)))).unwrap();
        fields
    }

    fn expected(scheme: &str, authority: &str) -> Vec<(String, String)> {
        let fields = [
            (":method", "POST"),
            (":scheme", scheme),
            (":path", PATH),
            (":authority", authority),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("user-agent", AGENT),
        ];
        fields.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }

    #[test]
    fn requests_have_the_headers_of_grpc() {
        for (scheme, authority, short) in [
            ("http", "127.0.0.1:8081".to_owned(), true),
            ("https", "a".repeat(300), true),
            ("http", "a".repeat(TABLE_BYTES), false),
        ] {
            let mut requests = Requests::new(scheme, &authority);
            let mut decoder = Decoder::default();
            for call in 0..3 {
                let block = requests.next();
                assert_eq!(block.len() < 10, short && call > 0, "call {call}");
                assert_eq!(decoded(&mut decoder, block), expected(scheme, &authority));
            }
        }
    }

    #[test]
    fn table_that_a_peer_makes_smaller_is_empty() {
        for before in 0..3 {
            let (mut requests, mut decoder) = (Requests::new("http", "a"), Decoder::default());
            for _ in 0..before {
                decoded(&mut decoder, requests.next());
            }
            requests.limit_table(4_096);
            assert_ne!(requests.next, Next::Emptying);
            requests.limit_table(4_095);
            let emptying = requests.next();
            assert!(emptying.starts_with(NO_TABLE));
            assert_eq!(decoded(&mut decoder, emptying), expected("http", "a"));
            for _ in 0..2 {
                let block = requests.next();
                assert!(block.len() > 100, "it needs no table");
                assert_eq!(decoded(&mut Decoder::default(), block), expected("http", "a"));
            }
        }
    }
}
