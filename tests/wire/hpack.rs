//! The reader of header blocks, by the letter of the standard, so that it shares nothing with an
//! engine. And a writer that compresses nothing.
//!
//! Source: RFC 7541, sections 5 and 6, appendices A and B.

use std::collections::VecDeque;

/// Bytes of the dynamic table that an encoder may use by default.
const TABLE_BYTES: usize = 4_096;

/// Headers in their order.
pub type Fields = Vec<(String, String)>;

/// The state of one direction of a connection.
#[derive(Debug)]
pub struct Decoder {
    dynamic: VecDeque<(String, String)>,
    /// Bytes of the dynamic table.
    most: usize,
    /// The most that the encoder may choose.
    pub bound: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { dynamic: VecDeque::new(), most: TABLE_BYTES, bound: TABLE_BYTES }
    }
}

impl Decoder {
    /// The headers of a block. Panics at what is no block: tollgate wrote it.
    pub fn decode(&mut self, mut block: &[u8]) -> Fields {
        let mut fields = Fields::new();
        while let Some(first) = block.first() {
            match first.leading_zeros() {
                0 => fields.push(self.entry(integer(&mut block, 7))),
                1 => {
                    let field = self.literal(&mut block, 6);
                    self.insert(field.clone());
                    fields.push(field);
                }
                2 => {
                    self.most = integer(&mut block, 5);
                    self.shrink();
                }
                _ => fields.push(self.literal(&mut block, 4)),
            }
        }
        assert!(self.most <= self.bound, "a table of {} bytes", self.most);
        fields
    }

    fn entry(&self, index: usize) -> (String, String) {
        match index.checked_sub(1 + STATIC.len()) {
            Some(index) => self.dynamic[index].clone(),
            None => (STATIC[index - 1].0.to_owned(), STATIC[index - 1].1.to_owned()),
        }
    }

    fn literal(&self, block: &mut &[u8], bits: u32) -> (String, String) {
        let name = match integer(block, bits) {
            0 => string(block),
            index => self.entry(index).0,
        };
        (name, string(block))
    }

    fn insert(&mut self, field: (String, String)) {
        self.dynamic.push_front(field);
        self.shrink();
    }

    fn shrink(&mut self) {
        let size = |table: &VecDeque<(String, String)>| {
            table.iter().map(|(name, value)| name.len() + value.len() + 32).sum::<usize>()
        };
        while size(&self.dynamic) > self.most {
            self.dynamic.pop_back();
        }
    }
}

/// An integer whose first byte has so many bits of it.
fn integer(block: &mut &[u8], bits: u32) -> usize {
    let most = (1 << bits) - 1;
    let mut number = usize::from(byte(block)) & most;
    if number == most {
        let mut shift = 0;
        loop {
            let next = usize::from(byte(block));
            number += (next & 127) << shift;
            shift += 7;
            if next < 128 {
                break;
            }
        }
    }
    number
}

fn byte(block: &mut &[u8]) -> u8 {
    let (first, rest) = block.split_first().expect("a whole block");
    *block = rest;
    *first
}

fn string(block: &mut &[u8]) -> String {
    let coded = block[0] & 128 != 0;
    let length = integer(block, 7);
    let (text, rest) = block.split_at(length);
    *block = rest;
    String::from_utf8(if coded { huffman(text) } else { text.to_vec() }).unwrap()
}

/// Decodes by the canonical order of the code: by length, then by symbol.
fn huffman(text: &[u8]) -> Vec<u8> {
    let (mut decoded, mut code, mut length) = (Vec::new(), 0_u32, 0_u8);
    for bit in text.iter().flat_map(|byte| (0..8).rev().map(move |at| (byte >> at) & 1)) {
        code = (code << 1) | u32::from(bit);
        length += 1;
        if let Some(symbol) = symbol(code, length) {
            decoded.push(symbol);
            (code, length) = (0, 0);
        }
    }
    assert!(length < 8 && code == (1 << length) - 1, "padding of ones");
    decoded
}

fn symbol(code: u32, length: u8) -> Option<u8> {
    let mut first = 0;
    for shorter in 1..=length {
        let of_length: Vec<usize> = (0..256).filter(|s| LENGTHS[*s] == shorter).collect();
        if shorter == length {
            let index = code.checked_sub(first)? as usize;
            return of_length.get(index).map(|symbol| *symbol as u8);
        }
        first = (first + of_length.len() as u32) << 1;
    }
    None
}

/// A block of these headers as literals.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let bytes: Vec<_> = fields.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
    block_of_bytes(&bytes)
}

/// The same of any bytes.
pub fn block_of_bytes(fields: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        write_string(&mut block, name);
        write_string(&mut block, value);
    }
    block
}

fn write_string(block: &mut Vec<u8>, text: &[u8]) {
    match text.len() {
        short @ ..127 => block.push(short as u8),
        long => {
            block.push(127);
            let mut rest = long - 127;
            while rest >= 128 {
                block.push((rest % 128) as u8 | 128);
                rest /= 128;
            }
            block.push(rest as u8);
        }
    }
    block.extend(text);
}

#[test]
fn blocks_of_the_standard_are_read() {
    // RFC 7541, C.6.1 and C.6.2 without `location`: a response, and one that refers to its table.
    let first = [
        0x48, 0x82, 0x64, 0x02, 0x58, 0x85, 0xae, 0xc3, 0x77, 0x1a, 0x4b, 0x61, 0x96, 0xd0, 0x7a,
        0xbe, 0x94, 0x10, 0x54, 0xd4, 0x44, 0xa8, 0x20, 0x05, 0x95, 0x04, 0x0b, 0x81, 0x66, 0xe0,
        0x82, 0xa6, 0x2d, 0x1b, 0xff,
    ];
    let mut decoder = Decoder::default();
    let fields = decoder.decode(&first);
    assert_eq!(fields[0], (":status".to_owned(), "302".to_owned()));
    assert_eq!(fields[2], ("date".to_owned(), "Mon, 21 Oct 2013 20:13:21 GMT".to_owned()));
    let second = decoder.decode(&[0x48, 0x83, 0x64, 0x0e, 0xff, 0xc0, 0xbf]);
    assert_eq!(second[0].1, "307");
    assert_eq!(second[1], ("cache-control".to_owned(), "private".to_owned()));
    let written = block(&[("a", &"b".repeat(300))]);
    assert_eq!(decoder.decode(&written), [("a".to_owned(), "b".repeat(300))]);
}

/// The static table.
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

/// The bits of the code of each byte. 30 bits of ones are the end of a string, which none has.
#[rustfmt::skip]
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5,
    5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6,
    6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22,
    23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22,
    21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20,
    22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19,
    21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22,
    22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];
