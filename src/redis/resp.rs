//! RESP2, the protocol of Redis, as far as the store needs it. No I/O.
//!
//! A command is a list of strings. A reply is an integer, a list of integers, a text (in the
//! log-in) or an error. Any other reply is a protocol error; the connection cannot be used after
//! it.

use std::mem;

/// Writes a command of these strings.
pub(crate) fn put_command(out: &mut Vec<u8>, strings: &[&[u8]]) {
    put_count(out, strings.len());
    for string in strings {
        put_string(out, string);
    }
}

/// Writes the header of a command of `count` strings.
pub(crate) fn put_count(out: &mut Vec<u8>, count: usize) {
    put_line(out, b'*', count);
}

/// Writes one string of a command.
pub(crate) fn put_string(out: &mut Vec<u8>, bytes: &[u8]) {
    put_line(out, b'$', bytes.len());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// Writes a number as a string of a command.
pub(crate) fn put_number(out: &mut Vec<u8>, number: usize) {
    let digits = number.checked_ilog10().unwrap_or(0) as usize + 1;
    put_line(out, b'$', digits);
    put_digits(out, number);
    out.extend_from_slice(b"\r\n");
}

fn put_line(out: &mut Vec<u8>, kind: u8, number: usize) {
    out.push(kind);
    put_digits(out, number);
    out.extend_from_slice(b"\r\n");
}

fn put_digits(out: &mut Vec<u8>, mut number: usize) {
    let start = out.len();
    loop {
        out.push(b'0' + (number % 10) as u8);
        number /= 10;
        if number == 0 {
            break;
        }
    }
    if let Some(digits) = out.get_mut(start..) {
        digits.reverse();
    }
}

/// Maximum length of a line in bytes. Redis cuts an error text much shorter.
const MAX_LINE_BYTES: usize = 64 << 10;

/// Maximum length of a list: the reply to a request of a hundred thousand limits.
const MAX_INTEGERS: usize = 1 << 20;

/// Maximum length of a text reply in bytes. The hash of a script has 40.
const MAX_TEXT_BYTES: usize = 512;

/// The reply to one command.
#[derive(Debug, Eq, PartialEq)]
pub enum Message {
    /// An integer.
    Integer(i64),
    /// A list of integers.
    Integers(Vec<i64>),
    /// A simple string or a bulk string.
    Text(String),
    /// An error with its code in front, such as `OOM command not allowed`.
    Error(String),
}

/// The error for bytes that are not a supported reply.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
#[error("Redis sent something else than a reply: {0}")]
pub struct Malformed(String);

/// An incremental decoder of replies. Bytes may arrive in chunks of any size.
#[derive(Debug, Default)]
pub struct Decoder {
    input: Vec<u8>,
    /// The position in `input` up to which it is decoded.
    at: usize,
    /// The list that is being decoded, and the number of integers still missing.
    list: Vec<i64>,
    lacks: usize,
}

impl Decoder {
    /// Returns the next complete reply; `None` if more bytes are needed.
    ///
    /// # Errors
    /// Fails on anything but a supported reply. The bytes after it cannot be decoded.
    pub fn decode(&mut self) -> Result<Option<Message>, Malformed> {
        while let Some(line) = line(&self.input, self.at)? {
            let header = self.at;
            self.at += line.len() + 1;
            let line = line.strip_suffix(b"\r").ok_or_else(|| malformed(line))?;
            let in_list = self.lacks > 0;
            match line {
                [b':', digits @ ..] => {
                    let number = integer(digits).ok_or_else(|| malformed(line))?;
                    if !in_list {
                        return Ok(Some(Message::Integer(number)));
                    }
                    self.list.push(number);
                    self.lacks -= 1;
                }
                [b'*', digits @ ..] if !in_list => {
                    let count = integer(digits).and_then(|count| usize::try_from(count).ok());
                    let count = count.filter(|count| *count <= MAX_INTEGERS);
                    self.lacks = count.ok_or_else(|| malformed(line))?;
                    // The count is untrusted: reserve no more than the input can hold.
                    self.list.reserve(self.lacks.min(self.input.len()));
                }
                [b'+', text @ ..] if !in_list => {
                    return Ok(Some(Message::Text(String::from_utf8_lossy(text).into_owned())));
                }
                [b'$', digits @ ..] if !in_list => {
                    let length = integer(digits).and_then(|length| usize::try_from(length).ok());
                    let length = length.filter(|length| *length <= MAX_TEXT_BYTES);
                    let length = length.ok_or_else(|| malformed(line))?;
                    let Some(text) = text(&self.input, self.at, length) else {
                        // Incomplete: decode again from the header when more bytes have arrived.
                        self.at = header;
                        break;
                    };
                    let text = text?;
                    self.at += length + 2;
                    return Ok(Some(Message::Text(text)));
                }
                [b'-', text @ ..] if !in_list => {
                    return Ok(Some(Message::Error(String::from_utf8_lossy(text).into_owned())));
                }
                _ => return Err(malformed(line)),
            }
            if self.lacks == 0 {
                return Ok(Some(Message::Integers(mem::take(&mut self.list))));
            }
        }
        self.input.drain(..self.at);
        self.at = 0;
        Ok(None)
    }

    /// Takes all input that has arrived, if `read` makes something of it. For a reply of another
    /// kind, while no other is due.
    pub(super) fn take_all<T>(&mut self, read: impl FnOnce(&[u8]) -> Option<T>) -> Option<T> {
        let found = read(self.input.get(self.at..)?)?;
        self.input.clear();
        self.at = 0;
        Some(found)
    }

    /// Appends bytes read from the socket.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }
}

/// The bytes between `at` and the next line feed; `None` if it has not arrived.
fn line(input: &[u8], at: usize) -> Result<Option<&[u8]>, Malformed> {
    let rest = input.get(at..).unwrap_or_default();
    let longest = rest.get(..MAX_LINE_BYTES);
    let line = longest.unwrap_or(rest);
    match line.iter().position(|byte| *byte == b'\n') {
        Some(end) => Ok(line.get(..end)),
        None if longest.is_some() => Err(malformed(line)),
        None => Ok(None),
    }
}

/// The text of `length` bytes at `at`; `None` if it is incomplete.
fn text(input: &[u8], at: usize, length: usize) -> Option<Result<String, Malformed>> {
    let (text, end) = input.get(at..at + length + 2)?.split_at(length);
    let text = String::from_utf8_lossy(text).into_owned();
    Some(if end == b"\r\n" { Ok(text) } else { Err(malformed(end)) })
}

fn integer(digits: &[u8]) -> Option<i64> {
    let (negative, digits) = match digits {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_i64, |number, byte| {
        let digit = i64::from(byte.wrapping_sub(b'0'));
        let number = number.checked_mul(10)?;
        match (digit < 10, negative) {
            (true, true) => number.checked_sub(digit),
            (true, false) => number.checked_add(digit),
            (false, _) => None,
        }
    })
}

fn malformed(line: &[u8]) -> Malformed {
    let shown = line.get(..80).unwrap_or(line);
    Malformed(shown.escape_ascii().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoder(bytes: &[u8]) -> Decoder {
        let mut decoder = Decoder::default();
        decoder.feed(bytes);
        decoder
    }

    #[test]
    fn commands_are_lists_of_strings() {
        let mut out = Vec::new();
        put_count(&mut out, 4);
        for number in [0, 9, 10] {
            put_number(&mut out, number);
        }
        put_string(&mut out, b"a\r\n\0");
        assert_eq!(out, b"*4\r\n$1\r\n0\r\n$1\r\n9\r\n$2\r\n10\r\n$4\r\na\r\n\0\r\n");
        out.clear();
        put_number(&mut out, usize::MAX);
        assert_eq!(out, format!("$20\r\n{}\r\n", u64::MAX).into_bytes());
    }

    #[test]
    fn replies_are_the_same_however_they_are_cut() {
        let bytes = b"*3\r\n:0\r\n:-9223372036854775808\r\n:9223372036854775807\r\n:12\r\n*0\r\n\
            -OOM no memory\r\n*1\r\n:-1\r\n";
        let expected = [
            Message::Integers(vec![0, i64::MIN, i64::MAX]),
            Message::Integer(12),
            Message::Integers(vec![]),
            Message::Error("OOM no memory".to_owned()),
            Message::Integers(vec![-1]),
        ];
        for size in 1..=bytes.len() {
            let (mut decoder, mut found) = (Decoder::default(), Vec::new());
            for part in bytes.chunks(size) {
                decoder.feed(part);
                while let Some(message) = decoder.decode().unwrap() {
                    found.push(message);
                }
            }
            assert_eq!(found, expected, "in parts of {size} bytes");
            assert!(decoder.input.is_empty());
        }
    }

    #[test]
    fn unfinished_replies_are_waited_for() {
        for bytes in [&b""[..], b":", b":1", b":1\r", b"*1", b"*1\r\n", b"*2\r\n:1\r\n", b"-ERR"] {
            assert_eq!(decoder(bytes).decode(), Ok(None), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn anything_else_is_malformed() {
        let lines: [&[u8]; 18] = [
            b"$2\r\nabc\r\n",
            b"$513\r\n",
            b"*1\r\n+OK\r\n",
            b"$-1\r\n",
            b"*-1\r\n",
            b"*1048577\r\n",
            b"*1\r\n*1\r\n",
            b"*1\r\n-ERR\r\n",
            b"*1\r\n$1\r\n",
            b"*\r\n",
            b":\r\n",
            b":-\r\n",
            b":1 \r\n",
            b":+1\r\n",
            b":9223372036854775808\r\n",
            b":1\n",
            b"\r\n",
            b">1\r\n",
        ];
        for bytes in lines {
            assert!(decoder(bytes).decode().is_err(), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn texts_are_read_however_they_are_cut() {
        let bytes = b"+OK\r\n$5\r\nab\r\nc\r\n$0\r\n\r\n:7\r\n";
        let expected = [
            Message::Text("OK".into()),
            Message::Text("ab\r\nc".into()),
            Message::Text(String::new()),
            Message::Integer(7),
        ];
        for cut in 0..bytes.len() {
            let (mut decoder, mut found) = (Decoder::default(), Vec::new());
            for part in [&bytes[..cut], &bytes[cut..]] {
                decoder.feed(part);
                while let Some(message) = decoder.decode().unwrap() {
                    found.push(message);
                }
            }
            assert_eq!(found, expected, "cut at {cut}");
        }
    }

    #[test]
    fn length_of_a_list_is_not_believed_before_it_is_there() {
        let mut decoder = decoder(b"*1048576\r\n:1\r\n");
        assert_eq!(decoder.decode(), Ok(None));
        assert!(decoder.list.capacity() < 100);
    }

    #[test]
    fn reply_without_an_end_is_malformed() {
        let mut decoder = decoder(b"-");
        let mut fed = 1;
        while decoder.decode().is_ok() {
            decoder.feed(&[b'x'; 1_000]);
            fed += 1_000;
        }
        assert!((MAX_LINE_BYTES..MAX_LINE_BYTES + 1_000).contains(&fed), "{fed} bytes");
    }
}
