//! Bytes of requests as text for logs and metadata.

use std::fmt;

/// Shows bytes as text: what is not UTF-8, control characters and `%` are percent-escaped.
pub fn escape(bytes: &[u8]) -> impl fmt::Display + '_ {
    Escaped(bytes)
}

struct Escaped<'a>(&'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                if c.is_control() || c == '%' {
                    let mut bytes = [0; 4];
                    c.encode_utf8(&mut bytes).bytes().try_for_each(|b| write!(f, "%{b:02X}"))?;
                } else {
                    write!(f, "{c}")?;
                }
            }
            chunk.invalid().iter().try_for_each(|b| write!(f, "%{b:02X}"))?;
        }
        Ok(())
    }
}
