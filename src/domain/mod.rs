//! The pure core: limits, counters, and the decision of a whole request.
//!
//! This module does no I/O, reads no clock and knows no protocol. State, limit, hits and time go
//! in; a [`Reading`] and the next state come out. The Lua script of the Redis store computes the
//! same function; tests compare the two on the same vectors and random traces.
//!
//! # Several limits on one counter
//!
//! A counter's key does not contain the numbers of the limit. During a roll-out, or when a client's
//! override changes, several limits therefore act on one counter. The largest of them bounds all
//! admissions together. In windows, each limit also bounds the hits that it admits itself. Once all
//! requests use one limit, the bound of that limit holds.
//!
//! # Example
//!
//! ```
//! use std::time::Duration;
//!
//! use tollgate::domain::{
//!     Algorithm, Charge, Claim, Clock, Commit, Counter, Group, Hits, Key, Limit, ManualClock,
//!     Part, Verdict,
//! };
//!
//! // 60 requests per minute, at most 2 at once.
//! let algorithm = Algorithm::TokenBucket { burst: 2 };
//! let limit = Limit::new(60, Duration::from_secs(60), algorithm, Charge::Admitted)?;
//!
//! // A request with one descriptor, which has one limit.
//! let key = Key::new(*b"api/client=alice");
//! let claim = Claim { key, limit, hits: Hits::Take(1), lease: None };
//! let part = Part { quota: false, shadow: false, claims: 0..1 };
//! let request = Group { parts: vec![part], claims: vec![claim] };
//!
//! let clock = ManualClock::default();
//! let mut counters = [Counter::Empty];
//! let mut decide = || {
//!     let readings = request.decide(Commit::Together, clock.now(), &[0], &mut counters);
//!     (request.verdict(|claim| readings[claim].passed), readings[0])
//! };
//!
//! assert_eq!(decide().0, Verdict::Admit);
//! assert_eq!(decide().0, Verdict::Admit);
//!
//! let (verdict, reading) = decide();
//! assert_eq!(verdict, Verdict::Deny);
//! assert_eq!(reading.retry_after, Some(Duration::from_secs(1)));
//!
//! clock.advance(Duration::from_secs(1));
//! assert_eq!(decide().0, Verdict::Admit);
//! # Ok::<(), tollgate::domain::LimitError>(())
//! ```
//!
//! # Modules
//!
//! * [`limit`]: a limit and its exact arithmetic constants.
//! * [`token_bucket`], [`sliding_window`], [`fixed_window`], [`concurrency`]: one algorithm each.
//! * [`lease`]: tokens of a bucket that a replica takes in advance.
//! * [`reading`]: the hits of a claim and the reading of its counter.
//! * [`counter`]: the state of one counter under any algorithm.
//! * [`group`]: the claims of one request, decided together.
//! * [`key`]: the name of a counter.
//! * [`amend`]: changes of a counter outside of decisions: hits given back, hits told afterwards.
//! * [`hold`]: what a request has reserved, settled once by its real cost.
//! * [`sequence`]: amendments that depend on the ones before.
//! * [`share`]: the share of a limit by which one process decides while the store is away.
//! * [`untold`]: the hits of a share that the store does not know yet.
//! * [`windows`]: windows of unequal lengths.
//! * [`clock`]: time as an input.

pub mod amend;
pub mod clock;
pub mod concurrency;
pub mod counter;
pub mod fixed_window;
pub mod group;
pub mod hold;
pub mod key;
pub mod lease;
pub mod limit;
pub mod reading;
pub mod sequence;
pub mod share;
pub mod sliding_window;
pub mod token_bucket;
pub mod untold;
pub mod windows;

pub use amend::{Amendment, Change, Told};
pub use clock::{CalendarClock, Clock, ManualClock, SystemClock, Timestamp, WallClock};
pub use counter::Counter;
pub use group::{Claim, Commit, Group, Part, Verdict};
pub use hold::{Guard, HoldId, Settled, Settlement};
pub use key::Key;
pub use lease::{Lease, LeaseAsk};
pub use limit::{Algorithm, Charge, Limit, LimitError, Unit, WHOLE};
pub use reading::{Hits, Reading};
pub use sequence::Sequence;
pub use untold::Untold;
pub use windows::{Window, Windows};

/// The value at which hits and sums of hits saturate: 2^52. A Lua double counts exactly to 2^53.
pub const SATURATION: u64 = 1 << 52;
