//! HPACK, the compression of headers: a decoder, and an encoder that keeps no state.
//!
//! The decoder is written here, because the crates for it panic on a field that is cut short, or
//! take time that grows with the square of what they are sent. The tests hold it to the decoder of
//! the `h2` crate. The encoder writes literals without an index, which need no table: the few
//! headers of an answer are not worth one.
//!
//! Source: RFC 7541.

mod huffman;
mod table;

pub use self::table::ENTRY_BYTES;
use self::table::{Entry, Table};

/// Bytes of the dynamic table, as long as the settings say nothing else.
pub const TABLE_BYTES: usize = 4_096;

/// The update of the size of the table to 0, at the beginning of a block.
pub const NO_TABLE: &[u8] = b"\x20";

/// The most bytes of an integer: any of 28 bits fits, and longer ones are refused.
const INTEGER_BYTES: usize = 5;

/// A block of headers that is not HPACK. Its connection is lost, as the tables differ from then on.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the headers are not HPACK")]
pub struct Invalid;

/// A decoder of the blocks of one connection.
#[derive(Debug)]
pub struct Decoder {
    table: Table,
    /// Changes with every change of the table.
    version: u64,
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Default for Decoder {
    fn default() -> Self {
        let table = Table::new(TABLE_BYTES);
        Self { table, version: 0, name: Vec::new(), value: Vec::new() }
    }
}

impl Decoder {
    /// Decodes `block`, and calls `field` with each name and value, in order.
    ///
    /// # Errors
    /// Fails on anything that is not HPACK. Fields before the fault have been told.
    pub fn decode(
        &mut self,
        mut block: &[u8],
        mut field: impl FnMut(&[u8], &[u8]),
    ) -> Result<(), Invalid> {
        let mut resizable = true;
        while let Some(&first) = block.first() {
            if first & 0x80 != 0 {
                let (name, value) = self.table.get(integer(&mut block, 7)?).ok_or(Invalid)?;
                field(name, value);
            } else if first & 0xe0 == 0x20 {
                // Sizes are at the beginning of a block. Source: RFC 7541, section 4.2.
                let size = integer(&mut block, 5)?;
                if !resizable || size > TABLE_BYTES {
                    return Err(Invalid);
                }
                self.table.resize(size);
                self.version += 1;
                continue;
            } else {
                self.literal(&mut block, first & 0x40 != 0, &mut field)?;
            }
            resizable = false;
        }
        Ok(())
    }

    /// Equal as long as blocks that change no table mean the same.
    pub const fn version(&self) -> u64 {
        self.version
    }

    fn literal(
        &mut self,
        block: &mut &[u8],
        indexed: bool,
        field: &mut impl FnMut(&[u8], &[u8]),
    ) -> Result<(), Invalid> {
        let Self { table, version, name: name_buffer, value: value_buffer } = self;
        let index = integer(block, if indexed { 6 } else { 4 })?;
        let name = match index {
            0 => string(block, name_buffer)?,
            index => table.get(index).ok_or(Invalid)?.0,
        };
        let value = string(block, value_buffer)?;
        field(name, value);
        if indexed {
            let entry = Entry::new(name, value);
            table.add(entry);
            *version += 1;
        }
        Ok(())
    }
}

/// Takes an integer with a prefix of so many bits off `block`.
fn integer(block: &mut &[u8], prefix: u32) -> Result<usize, Invalid> {
    let (&first, rest) = block.split_first().ok_or(Invalid)?;
    *block = rest;
    let most = (1_usize << prefix) - 1;
    let mut value = usize::from(first) & most;
    if value < most {
        return Ok(value);
    }
    for i in 0..INTEGER_BYTES - 1 {
        let (&byte, rest) = block.split_first().ok_or(Invalid)?;
        *block = rest;
        value += usize::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Invalid)
}

/// Takes a string off `block`; one that is compressed is decoded into `buffer`.
fn string<'a, 'b: 'a>(block: &mut &'b [u8], buffer: &'a mut Vec<u8>) -> Result<&'a [u8], Invalid> {
    let compressed = block.first().is_some_and(|first| first & 0x80 != 0);
    let length = integer(block, 7)?;
    let (text, rest) = block.split_at_checked(length).ok_or(Invalid)?;
    *block = rest;
    if !compressed {
        return Ok(text);
    }
    buffer.clear();
    huffman::decode(text, buffer).ok_or(Invalid)?;
    Ok(buffer)
}

/// Appends the response header `:status` to `block`.
pub fn write_status(block: &mut Vec<u8>, status: u16) {
    /// The name `:status` in the static table.
    const STATUS: u8 = 8;
    if status == 200 {
        return block.push(0x80 | STATUS);
    }
    block.push(STATUS);
    write_string(block, status.to_string().as_bytes());
}

/// Appends a field to `block`, as a literal that no table keeps. The name is in lower case.
pub fn write_field(block: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    block.push(0);
    write_string(block, name);
    write_string(block, value);
}

fn write_string(block: &mut Vec<u8>, text: &[u8]) {
    write_integer(block, text.len());
    block.extend_from_slice(text);
}

/// Appends an integer with a prefix of seven bits that is zero before it.
fn write_integer(block: &mut Vec<u8>, mut value: usize) {
    const MOST: usize = 0x7f;
    if value < MOST {
        return block.push(value as u8);
    }
    block.push(MOST as u8);
    value -= MOST;
    while value >= 0x80 {
        block.push(value as u8 & 0x7f | 0x80);
        value >>= 7;
    }
    block.push(value as u8);
}

#[cfg(test)]
mod tests;
