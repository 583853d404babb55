//! The parts that sections of settings are made of. Each room declares its own section with them.
//!
//! * `section!`: one declaration gives the type, the keys, their bounds, defaults and docs.
//! * [`Setting`]: a type that a setting may have; `words!`: a choice of words as such a type;
//!   `mappings!`: a mapping to such a type.
//! * [`Reader`]: takes values out of the merged sources and collects the faults.
//! * [`Secret`]: a value that is not shown.
//!
//! It knows no section, no file and no variable: `config` loads the sections.

mod fault;
mod pairs;
mod read;
mod secret;
mod section;
mod value;
mod word;

pub use self::fault::{Fault, Faults};
pub use self::pairs::{Headers, Pairs};
pub use self::secret::Secret;
pub use self::section::{Key, Section};

pub(crate) use self::read::{Reader, Resolved, Setting};
pub(crate) use self::secret::{NOT_A_SECRET, REDACTED};
pub(crate) use self::section::{dotted, section};
pub use self::value::{HostPort, Ratio};
pub(crate) use self::value::{SOME_TIME, declared, mappings, quoted};
pub(crate) use self::word::{Word, listed, words};
