//! Numbers as bytes, little-endian and without padding, as `struct.pack` of Redis writes them.

use smallvec::{Array, SmallVec};

use crate::domain::limit::Span;

/// The type of a field.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// One byte.
    U8,
    /// Two bytes.
    U16,
    /// Four bytes.
    U32,
    /// A double that holds a whole number, at most 2^53.
    F64,
    /// A double of whole microseconds, and four bytes: the remainder in rate-ths of a microsecond.
    Span,
}

impl Kind {
    /// The length in bytes.
    pub const fn size(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::U16 => 2,
            Self::U32 => 4,
            Self::F64 => 8,
            Self::Span => 12,
        }
    }

    /// The codes of `struct.pack`, one for each number of the script.
    pub const fn codes(self) -> &'static [&'static str] {
        match self {
            Self::U8 => &["B"],
            Self::U16 => &["H"],
            Self::U32 => &["I4"],
            Self::F64 => &["d"],
            Self::Span => &["d", "I4"],
        }
    }

    /// The name in the documentation.
    pub const fn name(self) -> &'static str {
        match self {
            Self::U8 => "u8",
            Self::U16 => "u16",
            Self::U32 => "u32",
            Self::F64 => "f64",
            Self::Span => "f64, u32",
        }
    }
}

/// A number of a record.
pub trait Number: Copy + Sized {
    /// The type that the script reads.
    const KIND: Kind;

    /// Appends the bytes.
    fn write(self, out: &mut impl Sink);

    /// Takes the bytes from the front; none if they are too few, or no such number.
    fn read(bytes: &mut &[u8]) -> Option<Self>;
}

/// A place for bytes.
pub trait Sink {
    /// Appends `bytes`.
    fn put<const N: usize>(&mut self, bytes: [u8; N]);
}

impl Sink for Vec<u8> {
    fn put<const N: usize>(&mut self, bytes: [u8; N]) {
        self.extend(bytes);
    }
}

impl<const M: usize> Sink for SmallVec<[u8; M]>
where
    [u8; M]: Array<Item = u8>,
{
    fn put<const N: usize>(&mut self, bytes: [u8; N]) {
        self.extend_from_slice(&bytes);
    }
}

/// Writes over what is there.
impl Sink for &mut [u8] {
    fn put<const N: usize>(&mut self, bytes: [u8; N]) {
        if let Some(place) = self.split_off_mut(..N) {
            place.copy_from_slice(&bytes);
        }
    }
}

macro_rules! integers {
    ($($number:ty = $kind:ident),+) => {$(
        impl Number for $number {
            const KIND: Kind = Kind::$kind;

            fn write(self, out: &mut impl Sink) {
                out.put(self.to_le_bytes());
            }

            fn read(bytes: &mut &[u8]) -> Option<Self> {
                bytes.split_off(..size_of::<Self>())?.try_into().ok().map(Self::from_le_bytes)
            }
        }
    )+};
}

integers!(u8 = U8, u16 = U16, u32 = U32);

/// At most 2^53, which a double holds exactly.
impl Number for u64 {
    const KIND: Kind = Kind::F64;

    fn write(self, out: &mut impl Sink) {
        out.put((self as f64).to_le_bytes());
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let number = f64::from_le_bytes(bytes.split_off(..8)?.try_into().ok()?);
        let exact = number.fract() == 0.0 && (0.0..=2f64.powi(53)).contains(&number);
        exact.then_some(number as Self)
    }
}

/// The remainder is less than the rate, which has 32 bits.
impl Number for Span {
    const KIND: Kind = Kind::Span;

    fn write(self, out: &mut impl Sink) {
        let mut bytes = [0; 12];
        let (micros, remainder) = bytes.split_at_mut(8);
        micros.copy_from_slice(&(self.micros as f64).to_le_bytes());
        remainder.copy_from_slice(&(self.remainder as u32).to_le_bytes());
        out.put(bytes);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        Some(Self { micros: u64::read(bytes)?, remainder: u32::read(bytes)?.into() })
    }
}
