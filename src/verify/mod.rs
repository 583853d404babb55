//! The checker of admissions: holds the recorded calls of callers against what a limit promises.
//!
//! A caller knows when it sent a call and when the answer came. The decision lies between the two.
//! The checker therefore counts a hit in an interval only if its call was sent and answered there.
//! An interval with more such hits than the promise allows proves an excess, wherever the decisions
//! were. A trace that passes is not proof of the opposite: an excess of about one hit can hide in
//! the time that answers take.
//!
//! This module is arithmetic in whole microseconds and exact integers. It does no I/O and shares no
//! code with the algorithms it judges.
//!
//! * [`Trace`]: the calls of one counter. [`Traces`]: those of many keys.
//! * [`Line`], [`key_of`], [`Descriptor`]: calls and keys as text, as `tollgate load` records them.
//! * [`Promise`]: a limit as a bound of admissions, from a [`Limit`](crate::domain::Limit) or from
//!   text. [`Promise::check`] is for tests, [`Promise::finding`] for reports.
//! * [`Worst`]: the interval with the largest excess.
//!
//! # Example
//!
//! ```
//! use tollgate::domain::Timestamp;
//! use tollgate::verify::{Promise, Trace};
//!
//! let promise: Promise = "sliding_window 2/s".parse()?;
//! let at = Timestamp::from_micros;
//!
//! let mut trace = Trace::default();
//! trace.admit(at(0), at(300), 1);
//! trace.admit(at(500_000), at(500_400), 1);
//! assert!(promise.check(&trace).is_ok());
//!
//! trace.admit(at(900_000), at(900_200), 1);
//! let broken = promise.check(&trace).unwrap_err();
//! assert_eq!((broken.worst.hits, broken.worst.allowed()), (3, 2.0));
//! # Ok::<(), String>(())
//! ```

mod exact;
mod finding;
mod key;
mod line;
mod notation;
mod promise;
mod rate;
mod refunds;
mod refusals;
mod sliding;
mod steps;
#[cfg(test)]
mod tests;
mod trace;
mod traces;
mod tree;
mod worst;

pub use self::finding::Finding;
pub use self::key::{Descriptor, key_of};
pub use self::line::{Answer, HEADER, Line};
pub use self::promise::{Broken, Promise};
pub use self::trace::{Call, Trace};
pub use self::traces::Traces;
pub use self::worst::Worst;
