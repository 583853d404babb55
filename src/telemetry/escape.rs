//! Escaping of bytes from requests for display in logs, metadata and lists.
//!
//! Callers may send any bytes as keys and values. Unescaped, they could forge log lines or control
//! a terminal. The escaping is for readers: it is ambiguous, so the text must not be used as a key.

use std::fmt::{self, Display, Write};

/// Displays `bytes` as text. Bytes that are not valid UTF-8, and the bytes of control characters,
/// become `%` and two upper-case hexadecimal digits. All other text, including `%`, is unchanged.
pub fn escape(bytes: &[u8]) -> impl Display + '_ {
    Escaped(bytes)
}

struct Escaped<'a>(&'a [u8]);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_escaped(f, self.0)
    }
}

/// Takes text, and bytes that are known to be printable ASCII.
pub trait PlainWrite: Write {
    /// Writes printable ASCII.
    fn write_plain(&mut self, plain: &[u8]) -> fmt::Result;
}

impl PlainWrite for fmt::Formatter<'_> {
    fn write_plain(&mut self, plain: &[u8]) -> fmt::Result {
        std::str::from_utf8(plain).map_err(|_| fmt::Error).and_then(|plain| self.write_str(plain))
    }
}

/// Writes what [`escape`] displays.
pub fn write_escaped(out: &mut impl PlainWrite, bytes: &[u8]) -> fmt::Result {
    if is_printable(bytes) {
        return out.write_plain(bytes);
    }
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if unsafe_to_show(c) {
                percent(c.encode_utf8(&mut [0; 4]).as_bytes(), out)?;
            } else {
                out.write_char(c)?;
            }
        }
        percent(chunk.invalid(), out)?;
    }
    Ok(())
}

/// True if all bytes are printable ASCII. Looks at eight at a time: answers and keys consist of
/// such text.
pub fn is_printable(bytes: &[u8]) -> bool {
    const EACH: u64 = u64::from_ne_bytes([1; 8]);
    const SPACES: u64 = EACH * b' ' as u64;
    const HIGHEST_BITS: u64 = EACH << 7;
    let (words, rest) = bytes.as_chunks::<8>();
    let is_word = |word: &[u8; 8]| {
        let word = u64::from_ne_bytes(*word);
        // Below a space, above ASCII, and DEL.
        (word.wrapping_sub(SPACES) | word | word.wrapping_add(EACH)) & HIGHEST_BITS == 0
    };
    words.iter().all(is_word) && rest.iter().all(|byte| matches!(byte, b' '..=b'~'))
}

/// True for control characters, Unicode line separators and bidirectional controls.
fn unsafe_to_show(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn percent(bytes: &[u8], out: &mut impl Write) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(out, "%{byte:02X}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_unsafe_to_show_is_escaped() {
        for (bytes, text) in [
            (&b""[..], ""),
            (b"acme-7/%41 \"x\"", "acme-7/%41 \"x\""),
            ("Zürich \u{1f980}".as_bytes(), "Zürich \u{1f980}"),
            (b"a\r\nb\x1b[2J\x00\x7f", "a%0D%0Ab%1B[2J%00%7F"),
            ("\u{85}\u{2028}\u{202e}".as_bytes(), "%C2%85%E2%80%A8%E2%80%AE"),
            (b"12345678\x7f", "12345678%7F"),
            (b"1234567\x7f1234567 ~", "1234567%7F1234567 ~"),
            (b"1234\x1f567~\xff345678", "1234%1F567~%FF345678"),
            (b"a\xffb\xf0\x9f\xa6", "a%FFb%F0%9F%A6"),
            (b"\xc0\xaf\xed\xa0\x80", "%C0%AF%ED%A0%80"),
        ] {
            assert_eq!(escape(bytes).to_string(), text);
        }
    }
}
