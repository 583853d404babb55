//! The header blocks of requests (HPACK, RFC 7541): the first of a connection puts its fields into
//! the peer's table, the others name them there, as the usual clients of gRPC do.

const PATH: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";
const AGENT: &str = concat!("tollgate-load/", env!("CARGO_PKG_VERSION"));

// Entries of the static table.
const AUTHORITY: u8 = 1;
const METHOD_POST: u8 = 3;
const PATH_NAME: u8 = 4;
const SCHEME_HTTP: u8 = 6;
const SCHEME_HTTPS: u8 = 7;
const CONTENT_TYPE: u8 = 31;
const USER_AGENT: u8 = 58;

/// The first entry of the dynamic table.
const FIRST_DYNAMIC: u8 = 62;

/// The bytes that a table has unless the peer wants fewer.
const TABLE_BYTES: usize = 4_096;
/// The bytes of an entry beside its name and value.
const ENTRY_BYTES: usize = 32;

/// A field: its name, whose place in the static table is 0 if it has none, and its value.
type Field<'a> = (u8, &'static str, &'a str);

/// The header blocks of the requests on one connection.
#[derive(Clone, Debug)]
pub(super) struct Requests {
    /// The block that needs no table.
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
        let fields: [Field<'_>; 5] = [
            (PATH_NAME, ":path", PATH),
            (AUTHORITY, ":authority", authority),
            (CONTENT_TYPE, "content-type", "application/grpc"),
            (0, "te", "trailers"),
            (USER_AGENT, "user-agent", AGENT),
        ];
        let begin = vec![0x80 | METHOD_POST, 0x80 | scheme];
        let [mut literal, mut filling, mut indexed] = [begin.clone(), begin.clone(), begin];
        // The newest entry is the first of the table.
        for (field, entry) in fields.iter().zip((FIRST_DYNAMIC..FIRST_DYNAMIC + 5).rev()) {
            put_field(&mut literal, 0, 4, field);
            put_field(&mut filling, 0x40, 6, field);
            indexed.push(0x80 | entry);
        }
        let bytes = fields.iter().map(|(_, name, value)| name.len() + value.len() + ENTRY_BYTES);
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
                // The new size of the table comes first: 0.
                self.filling = [&[0x20], &*self.literal].concat();
                &self.filling
            }
            Next::Literal => &self.literal,
        }
    }

    /// The peer wants a table of at most `bytes`. The one of a smaller table stays empty.
    pub(super) const fn limit_table(&mut self, bytes: u32) {
        if (bytes as usize) < TABLE_BYTES {
            self.next = Next::Emptying;
        }
    }
}

/// A literal, which begins with `kind` and `bits` for the place of its name.
fn put_field(block: &mut Vec<u8>, kind: u8, bits: u32, &(place, name, value): &Field<'_>) {
    let at = block.len();
    put_number(block, bits, place.into());
    if let Some(first) = block.get_mut(at) {
        *first |= kind;
    }
    if place == 0 {
        put_text(block, name);
    }
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
            assert_eq!(requests.next().first(), Some(&0x20));
            for _ in 0..2 {
                let block = requests.next();
                assert!(block.len() > 100, "it needs no table");
                assert_eq!(decoded(&mut Decoder::default(), block), expected("http", "a"));
            }
        }
    }
}
