//! The pure core: what a limit is, how a counter moves, and what a whole request gets.
//!
//! Nothing here waits, reads a clock, talks to a store or knows a protocol: state, limit, hits and the
//! time go in, a [`Reading`] and the next state come out. `store/redis/script/lua/` is the twin of this
//! module; both are held to the same vectors and traces.
//!
//! # Several limits on one counter
//!
//! A counter's key has no numbers, so limits of different numbers may act on one counter: a roll-out, a client that is
//! changed back and forth. The largest of them bounds all admissions together, and in windows each limit bounds what it
//! admits itself. Once every request comes under one limit, its own bound holds from then on.
//!
//! * [`limit`]: a limit and its exact arithmetic constants.
//! * [`token_bucket`], [`sliding_window`], [`fixed_window`]: one algorithm each.
//! * [`lease`]: tokens of a bucket that replicas take before they spend them.
//! * [`reading`]: what a claim asks, what a counter says.
//! * [`counter`]: the state of one counter, whatever its algorithm.
//! * [`group`]: all claims of one request, decided together.
//! * [`clock`]: time as an input.

pub mod clock;
pub mod counter;
pub mod fixed_window;
pub mod group;
pub mod lease;
pub mod limit;
pub mod reading;
pub mod sliding_window;
pub mod token_bucket;

pub use clock::{CalendarClock, Clock, ManualClock, SystemClock, Timestamp, WallClock};
pub use counter::Counter;
pub use group::{Claim, Commit, Group, Key, Part, Verdict};
pub use lease::{Lease, LeaseAsk};
pub use limit::{Algorithm, Charge, Limit, LimitError, Unit};
pub use reading::{Hits, Reading};

/// Hits and sums of hits saturate here, 2^52: a Lua double counts exactly to twice that.
pub const SATURATION: u64 = 1 << 52;
