//! Declarations of constants and records: each makes the Rust items and their description at once.

use super::number::{Kind, Sink};

/// A constant that Rust and the script share.
#[derive(Clone, Copy, Debug)]
pub struct Constant {
    /// The name, the same in Rust and in Lua.
    pub name: &'static str,
    /// The value.
    pub value: u64,
    /// The meaning.
    pub meaning: &'static str,
}

/// A field of a record.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// The name, in Lua in capitals.
    pub name: &'static str,
    /// The type.
    pub kind: Kind,
    /// The unit, empty for a plain number.
    pub unit: &'static str,
    /// The meaning.
    pub meaning: &'static str,
}

/// Fields that stand one after the other.
pub trait Record: Copy + Sized {
    /// The purpose of the record.
    const ABOUT: &'static str;
    /// The fields in their order.
    const FIELDS: &'static [Field];
    /// The length in bytes.
    const SIZE: usize;

    /// Appends the bytes.
    fn write(self, out: &mut impl Sink);

    /// Takes the bytes from the front; none if they are too few, or no such numbers.
    fn read(bytes: &mut &[u8]) -> Option<Self>;
}

/// Integers of the reply that stand one after the other.
pub trait Answer: Copy + Sized {
    /// The purpose of the record.
    const ABOUT: &'static str;
    /// The name, the unit and the meaning of each integer.
    const INTEGERS: &'static [(&'static str, &'static str, &'static str)];

    /// Takes the integers from the front; none if they are too few.
    fn read(integers: &mut impl Iterator<Item = u64>) -> Option<Self>;
}

/// Declares constants and the list that describes them.
macro_rules! constants {
    ($(
        $(#[doc = $about:literal])+
        $list:ident: $number:ty { $($name:ident = $value:expr, $meaning:literal;)+ }
    )+) => {$(
        $(#[doc = $meaning] pub const $name: $number = $value;)+
        $(#[doc = $about])+
        pub const $list: &[Constant] =
            &[$(Constant { name: stringify!($name), value: $name as u64, meaning: $meaning }),+];
    )+};
}

/// Declares records of bytes.
macro_rules! records {
    ($(
        $(#[doc = $about:literal])+
        $record:ident { $($field:ident: $number:ty, $unit:literal, $meaning:literal;)+ }
    )+) => {$(
        $(#[doc = $about])+
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub struct $record { $(#[doc = $meaning] pub $field: $number,)+ }

        impl Record for $record {
            const ABOUT: &'static str = concat!($($about),+);
            const FIELDS: &'static [Field] = &[$(Field {
                name: stringify!($field),
                kind: <$number as Number>::KIND,
                unit: $unit,
                meaning: $meaning,
            }),+];
            const SIZE: usize = 0 $(+ <$number as Number>::KIND.size())+;

            fn write(self, out: &mut impl Sink) {
                let mut bytes = [0; Self::SIZE];
                let mut rest = bytes.as_mut_slice();
                $(self.$field.write(&mut rest);)+
                out.put(bytes);
            }

            fn read(bytes: &mut &[u8]) -> Option<Self> {
                Some(Self { $($field: Number::read(bytes)?),+ })
            }
        }
    )+};
}

/// Declares records of integers of the reply.
macro_rules! answers {
    ($(
        $(#[doc = $about:literal])+
        $record:ident { $($field:ident, $unit:literal, $meaning:literal;)+ }
    )+) => {$(
        $(#[doc = $about])+
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub struct $record { $(#[doc = $meaning] pub $field: u64,)+ }

        impl Answer for $record {
            const ABOUT: &'static str = concat!($($about),+);
            const INTEGERS: &'static [(&'static str, &'static str, &'static str)] =
                &[$((stringify!($field), $unit, $meaning)),+];

            fn read(integers: &mut impl Iterator<Item = u64>) -> Option<Self> {
                Some(Self { $($field: integers.next()?),+ })
            }
        }
    )+};
}

pub(super) use {answers, constants, records};
