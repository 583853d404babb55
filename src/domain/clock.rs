//! Time as an input: whole microseconds since 1970 on the clock of a store.
//!
//! The Redis store uses the clock of Redis. The memory store takes a [`Clock`] that is not affected
//! by steps of the wall clock. Dates, such as the expiry of a client override, are compared with a
//! [`CalendarClock`].

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A point in time, in microseconds since 1970-01-01 00:00 UTC.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Timestamp(u64);

impl Timestamp {
    /// 1970-01-01 00:00 UTC.
    pub const EPOCH: Self = Self(0);

    /// The point `micros` microseconds after 1970-01-01 00:00 UTC.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since 1970-01-01 00:00 UTC.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// The point `micros` microseconds later. Saturates.
    #[must_use]
    pub const fn plus_micros(self, micros: u64) -> Self {
        Self(self.0.saturating_add(micros))
    }

    /// The point `micros` microseconds earlier. Saturates.
    #[must_use]
    pub const fn minus_micros(self, micros: u64) -> Self {
        Self(self.0.saturating_sub(micros))
    }

    /// Microseconds from `earlier` to this point; zero if `earlier` is later.
    pub const fn micros_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Microseconds from `earlier` to this point; `None` if `earlier` is later.
    pub const fn checked_micros_since(self, earlier: Self) -> Option<u64> {
        self.0.checked_sub(earlier.0)
    }

    /// The latest multiple of `micros` microseconds since 1970 that is not after this point.
    #[must_use]
    pub const fn floor(self, micros: u64) -> Self {
        Self(self.0 - self.0 % micros)
    }
}

/// A source of time for a store.
pub trait Clock: Send + Sync + 'static {
    /// The current time. It may step back; every algorithm handles that.
    fn now(&self) -> Timestamp;
}

/// The wall clock of this machine. It steps when the machine's time is set.
#[derive(Clone, Copy, Debug)]
pub struct WallClock;

impl Clock for WallClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the wall clock"
    )]
    fn now(&self) -> Timestamp {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Timestamp(micros(wall))
    }
}

/// The wall clock at start plus the monotonic time since then, so a step of the wall clock does not
/// affect limits.
#[derive(Debug)]
pub struct SystemClock {
    wall_at_start: Timestamp,
    start: Instant,
}

impl SystemClock {
    /// Reads the wall clock, once.
    pub fn start() -> Self {
        Self { wall_at_start: WallClock.now(), start: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.wall_at_start.0.saturating_add(micros(self.start.elapsed())))
    }
}

/// A clock that is corrected by periodic readings of a reference clock.
#[derive(Debug)]
pub struct CalendarClock<C = SystemClock> {
    own: C,
    /// The microseconds by which the reference clock is ahead of `own`.
    offset: AtomicI64,
}

impl<C: Clock> CalendarClock<C> {
    /// A clock that follows `own` until it is corrected.
    pub const fn new(own: C) -> Self {
        Self { own, offset: AtomicI64::new(0) }
    }

    /// Corrects this clock from one reading of the reference clock, and returns the correction in
    /// microseconds (positive: this clock was behind).
    ///
    /// The reading `shown` was taken at an unknown moment after this clock showed `asked`. The
    /// correction is the smallest one that is consistent with that.
    ///
    /// # Concurrency
    /// Callers make one correction at a time.
    pub fn correct(&self, asked: Timestamp, shown: Timestamp) -> i64 {
        let now = self.now();
        let waited = now.0.saturating_sub(asked.0);
        let right = now.0.clamp(shown.0, shown.0.saturating_add(waited));
        let behind = right.wrapping_sub(now.0).cast_signed();
        self.offset.fetch_add(behind, Ordering::Relaxed);
        behind
    }
}

impl<C: Clock> Clock for CalendarClock<C> {
    fn now(&self) -> Timestamp {
        let offset = self.offset.load(Ordering::Relaxed);
        Timestamp(self.own.now().0.saturating_add_signed(offset))
    }
}

/// A clock that moves only when it is set or advanced, for tests and the replay of traces.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// A clock that stands at `now`.
    pub const fn at(now: Timestamp) -> Self {
        Self(AtomicU64::new(now.0))
    }

    /// Moves the clock, forwards or back.
    pub fn set(&self, now: Timestamp) {
        self.0.store(now.0, Ordering::SeqCst);
    }

    /// Moves the clock forwards.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(micros(by), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

impl<C: Clock + ?Sized> Clock for std::sync::Arc<C> {
    fn now(&self) -> Timestamp {
        C::now(self)
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn calendar_clock_is_corrected_no_further_than_is_sure() {
        let own = Arc::new(ManualClock::at(Timestamp(1_000)));
        let calendar = CalendarClock::new(Arc::clone(&own));
        // The reading of the reference clock while 10 microseconds pass here, the correction, and
        // the time that this clock shows then.
        for (shown, behind, now) in [
            (1_005, 0, 1_010),
            (1_010, 0, 1_020),
            (1_020, 0, 1_030),
            (1_041, 1, 1_041),
            (1_040, -1, 1_050),
            (5, -1_045, 15),
            (9_000, 8_975, 9_000),
            (0, -9_000, 10),
        ] {
            let asked = calendar.now();
            own.advance(Duration::from_micros(10));
            assert_eq!(
                (calendar.correct(asked, Timestamp(shown)), calendar.now().0),
                (behind, now)
            );
        }
        own.set(Timestamp(0));
        assert_eq!(calendar.now(), Timestamp(0), "a step back before 1970 is its first moment");
    }
}
