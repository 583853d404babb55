//! Adaptive limits: the limits of a rule are turned down while what they protect is unwell.
//!
//! ```text
//!  replicas --Second--> merged --Controller::observe--> Step: scale
//!  what was admitted, how it ended        part of the limits, within min and max
//! ```
//! * [`Second`]: what was seen of a rule in a second.
//! * [`Terms`]: the targets of a rule, and the bounds of its scale.
//! * [`Histogram`]: times, and costs from which estimates are learned.
//! * [`Controller`]: from seconds to scales; `rate` and `relative` are its two ways of moving.
//!
//! Pure: no clock, no random numbers, no input but the seconds.

mod controller;
mod course;
mod histogram;
mod rate;
mod relative;
mod second;
mod terms;
#[cfg(test)]
mod tests;

pub use self::controller::{Cause, Controller, Form, Step};
pub use self::histogram::Histogram;
pub use self::second::Second;
pub use self::terms::Terms;
