//! The Huffman code of HPACK: the decoder, which is all that a server needs that sends plain text.
//!
//! The code is canonical: codes of one length are consecutive numbers in the order of their
//! symbols, and shorter ones go first. So the lengths say it all.
//!
//! Source: RFC 7541, section 5.2 and appendix B.

/// The symbols: every byte, and the end of a string.
const SYMBOLS: usize = 257;
const MAX_BITS: usize = 30;
/// Codes up to this length are looked up at once. Those of printable text are, but a few.
const SHORT_BITS: usize = 8;

/// Bits of the code of each symbol.
#[rustfmt::skip]
const LENGTHS: [u8; SYMBOLS] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

/// The codes, by their lengths.
struct Code {
    /// Symbols in the order of their codes.
    symbols: [u16; SYMBOLS],
    /// By length: the position of the first symbol of this length.
    first_position: [u16; MAX_BITS + 1],
    /// By length: the code after the last one of this length, or of shorter ones.
    end: [u32; MAX_BITS + 1],
    /// By the next eight bits: symbol and length of a short code; length 0: it is longer.
    short: [(u8, u8); 1 << SHORT_BITS],
}

static CODE: Code = code();

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const fn code() -> Code {
    let mut code = Code {
        symbols: [0; SYMBOLS],
        first_position: [0; MAX_BITS + 1],
        end: [0; MAX_BITS + 1],
        short: [(0, 0); 1 << SHORT_BITS],
    };
    let (mut next, mut position, mut bits) = (0_u32, 0, 1);
    while bits <= MAX_BITS {
        next <<= 1;
        code.first_position[bits] = position as u16;
        let mut symbol = 0;
        while symbol < SYMBOLS {
            if LENGTHS[symbol] as usize == bits {
                code.symbols[position] = symbol as u16;
                if bits <= SHORT_BITS {
                    let rest = SHORT_BITS - bits;
                    let mut i = 0;
                    while i < 1 << rest {
                        code.short[((next as usize) << rest) + i] = (symbol as u8, bits as u8);
                        i += 1;
                    }
                }
                next += 1;
                position += 1;
            }
            symbol += 1;
        }
        code.end[bits] = next;
        bits += 1;
    }
    code
}

/// Appends the text that `encoded` stands for to `out`. `None`: it has the end symbol in it, or
/// ends with anything else than up to seven bits of that.
pub(super) fn decode(encoded: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let (mut buffer, mut bits) = (0_u64, 0_usize);
    let mut bytes = encoded.iter();
    loop {
        while bits <= 56
            && let Some(byte) = bytes.next()
        {
            buffer = (buffer << 8) | u64::from(*byte);
            bits += 8;
        }
        match symbol(buffer, bits) {
            Some((symbol, length)) => {
                out.push(u8::try_from(symbol).ok()?);
                bits -= length;
            }
            None => break,
        }
    }
    // The rest is a part of the code of the end, which is all ones.
    let padding = (1_u64 << bits.min(63)) - 1;
    (bits < 8 && buffer & padding == padding).then_some(())
}

/// The first symbol in the last `bits` bits of `buffer`, and its length; `None`: they are a part of
/// a code.
#[inline]
fn symbol(buffer: u64, bits: usize) -> Option<(u16, usize)> {
    // With ones behind it: a part of a code that is all ones is found to be too long.
    let window = |length: usize| {
        if bits >= length {
            buffer >> (bits - length)
        } else {
            (buffer << (length - bits)) | ((1 << (length - bits)) - 1)
        }
    };
    let next = window(SHORT_BITS) as usize & ((1 << SHORT_BITS) - 1);
    let (symbol, length) = CODE.short.get(next).copied().unwrap_or_default();
    if length > 0 {
        return (usize::from(length) <= bits).then_some((symbol.into(), length.into()));
    }
    let longer = SHORT_BITS + 1..=MAX_BITS.min(bits);
    let mut found = longer.filter_map(|length| {
        let code = (window(length) & ((1 << length) - 1)) as u32;
        let back = CODE.end.get(length)?.checked_sub(code + 1)?;
        let last = CODE.first_position.get(length + 1).copied().unwrap_or(SYMBOLS as u16);
        let symbol = CODE.symbols.get(usize::from(last).checked_sub(back as usize + 1)?)?;
        Some((*symbol, length))
    });
    found.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Code and length of each symbol.
    fn codes() -> Vec<(u32, u8)> {
        let mut codes = vec![(0, 0); SYMBOLS];
        let (mut next, mut bits) = (0_u32, 0);
        let mut order: Vec<usize> = (0..SYMBOLS).collect();
        order.sort_by_key(|symbol| (LENGTHS[*symbol], *symbol));
        for symbol in order {
            next <<= LENGTHS[symbol] - bits;
            bits = LENGTHS[symbol];
            codes[symbol] = (next, bits);
            next += 1;
        }
        codes
    }

    fn encode(codes: &[(u32, u8)], text: &[u8]) -> Vec<u8> {
        let mut bits: Vec<bool> = Vec::new();
        for byte in text {
            let (code, length) = codes[usize::from(*byte)];
            bits.extend((0..length).rev().map(|i| code >> i & 1 == 1));
        }
        bits.resize(bits.len().next_multiple_of(8), true);
        let byte = |bits: &[bool]| bits.iter().fold(0, |byte, bit| byte << 1 | u8::from(*bit));
        bits.chunks(8).map(byte).collect()
    }

    fn decoded(encoded: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        decode(encoded, &mut out).map(|()| out)
    }

    #[test]
    fn codes_are_those_of_the_specification() {
        let codes = codes();
        // RFC 7541, appendix B.
        for (symbol, code, length) in [
            (0, 0x1ff8, 13),
            (10, 0x3fff_fffc, 30),
            (usize::from(b'/'), 0x18, 6),
            (usize::from(b'z'), 0x7b, 7),
            (255, 0x3ff_ffee, 26),
            (256, 0x3fff_ffff, 30),
        ] {
            assert_eq!(codes[symbol], (code, length), "{symbol}");
        }
        // RFC 7541, appendix C.4.1.
        let encoded = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        assert_eq!(decoded(&encoded).unwrap(), b"www.example.com");
    }

    #[test]
    fn every_byte_is_read_back_beside_every_other() {
        let codes = codes();
        for one in 0..=255 {
            for other in 0..=255 {
                let text = [one, other, one];
                assert_eq!(decoded(&encode(&codes, &text)).as_deref(), Some(&text[..]));
            }
        }
    }

    #[test]
    fn padding_is_the_beginning_of_the_end_and_no_byte() {
        assert_eq!(decoded(&[]), Some(Vec::new()));
        assert_eq!(decoded(&[0xff]), None, "eight bits");
        assert_eq!(decoded(&[0x1f, 0xff]), None, "eleven bits");
        assert_eq!(decoded(&[0x1f]), Some(b"a".to_vec()));
        assert_eq!(decoded(&[0x1e]), None, "not ones");
        assert_eq!(decoded(&[0xff, 0xff, 0xff, 0xff]), None, "the end itself");
    }
}
