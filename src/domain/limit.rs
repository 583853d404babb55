//! A limit: requests per period, or at a time, under one of four algorithms, with precomputed
//! constants.
//!
//! Rates are exact rationals. One hit of a token bucket costs P/n microseconds, stored as quotient
//! and remainder and never truncated. With truncation, a limit of 700 000 hits per second would
//! admit 43 % too much.

use std::fmt;
use std::time::Duration;

use super::windows::{Window, Windows};
use super::{SATURATION, Timestamp};

mod scale;
mod wait;

pub use self::scale::WHOLE;

/// The maximum period and the maximum fill time of a bucket: 2^51 microseconds (71 years).
const MAX_SPAN_US: u64 = 1 << 51;

/// A unit of time, as in "requests per second".
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Unit {
    /// 1 second.
    Second,
    /// 60 seconds.
    Minute,
    /// 3 600 seconds.
    Hour,
    /// 86 400 seconds.
    Day,
    /// 7 days. Aligned windows begin on Thursday, because 1970-01-01 was a Thursday.
    Week,
    /// 30 days.
    Month,
    /// 365 days.
    Year,
}

impl Unit {
    /// Every unit, shortest first.
    pub const ALL: [Self; 7] =
        [Self::Second, Self::Minute, Self::Hour, Self::Day, Self::Week, Self::Month, Self::Year];

    /// The maximum period of a limit: ten years.
    pub const MAX_PERIOD: Duration = Duration::from_hours(10 * 365 * 24);

    /// The length of the unit in seconds.
    pub const fn seconds(self) -> u64 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3_600,
            Self::Day => 86_400,
            Self::Week => 604_800,
            Self::Month => 30 * 86_400,
            Self::Year => 365 * 86_400,
        }
    }

    /// The name of the unit in lower case, as policies write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Second => "second",
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Year => "year",
        }
    }

    /// Parses the name of a unit, ignoring case.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|unit| unit.name().eq_ignore_ascii_case(name))
    }

    /// Returns `multiplier` units as a period, or `None` if that is zero or longer than ten years.
    pub fn period(self, multiplier: u32) -> Option<Duration> {
        let period = Duration::from_secs(self.seconds().checked_mul(multiplier.into())?);
        (multiplier > 0 && period <= Self::MAX_PERIOD).then_some(period)
    }
}

/// The algorithm that counts hits.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Algorithm {
    /// A bucket of at most `burst` tokens that refills at the rate.
    TokenBucket {
        /// The capacity of the bucket in tokens, at least 1.
        burst: u32,
    },
    /// At most n hits in any window of one period.
    SlidingWindow {
        /// The number of runs in which the hits of a window are gathered, at least 1. A denial
        /// lasts at most one slot longer than with a log of every hit.
        slots: u32,
    },
    /// At most n hits in each window aligned to the epoch.
    FixedWindow,
    /// At most n holds at a time, each for at most one period.
    Concurrency,
}

impl Algorithm {
    /// The default number of slots of a sliding window.
    pub const DEFAULT_SLOTS: u32 = 10;
}

/// The condition under which the hits of a claim are charged.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Charge {
    /// Only when the request is admitted.
    #[default]
    Admitted,
    /// Always, as for a cost that is already spent. A bucket can go into debt.
    Always {
        /// The maximum debt of a token bucket in hits. `None`: 2^52 microseconds of refill.
        max_debt: Option<u64>,
    },
    /// [`Hits::Book`](super::Hits::Book) always, all others only when the request is admitted.
    Settled {
        /// The maximum debt of a token bucket in hits. `None`: 2^52 microseconds of refill.
        max_debt: Option<u64>,
    },
    /// Only when the request is admitted, as an estimate. What it costs beyond is charged when it
    /// is settled, and can put a bucket into debt.
    Held {
        /// The maximum debt of a token bucket in hits. `None`: 2^52 microseconds of refill.
        max_debt: Option<u64>,
    },
}

/// The reason why [`Limit::new`] rejects its arguments.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LimitError {
    /// The period is zero or above 2^51 microseconds.
    Period,
    /// The bucket would need more than 2^51 microseconds to fill.
    Fill,
    /// A bucket without capacity, or with capacity but without a rate.
    Burst,
    /// A sliding window with no slots or more than [`Limit::MAX_SLOTS`].
    Slots,
}

impl fmt::Display for LimitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Period => write!(f, "the period must be positive and at most 2^51 microseconds"),
            Self::Fill => {
                write!(f, "at this rate a bucket of this burst needs over 71 years to fill")
            }
            Self::Burst => write!(f, "burst must be at least 1, and needs a rate above 0"),
            Self::Slots => write!(f, "slots must be between 1 and {}", Limit::MAX_SLOTS),
        }
    }
}

impl std::error::Error for LimitError {}

/// A span of bucket time, `micros + remainder / n` microseconds with `remainder < n`.
///
/// The field order makes the derived order the numeric one.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Span {
    /// Whole microseconds.
    pub micros: u64,
    /// The fraction in n-ths of a microsecond.
    pub remainder: u64,
}

impl Span {
    /// The longest span that is ever written.
    pub(super) const SATURATED: Self = Self { micros: SATURATION, remainder: 0 };

    /// The sum of two spans of rate `rate`.
    pub(super) fn plus(self, other: Self, rate: u32) -> Self {
        let rate = u64::from(rate);
        let remainder = self.remainder + other.remainder;
        let carry = u64::from(remainder >= rate);
        Self { micros: self.micros + other.micros + carry, remainder: remainder - carry * rate }
    }

    /// The difference of two spans of rate `rate`; saturates at zero.
    pub(super) fn minus(self, other: Self, rate: u32) -> Self {
        if self <= other {
            return Self::default();
        }
        let borrow = u64::from(self.remainder < other.remainder);
        let remainder = self.remainder + borrow * u64::from(rate) - other.remainder;
        Self { micros: self.micros - other.micros - borrow, remainder }
    }
}

/// Requests per period under an algorithm. [`Limit::new`] rejects arguments that cannot be counted
/// exactly.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limit {
    requests: u32,
    period: u64,
    algorithm: Algorithm,
    charge: Charge,
    /// The time a full bucket takes to drain at the rate, and the longest wait.
    full: Span,
    /// The maximum lag of a bucket under this limit: `full` plus the permitted debt.
    ceiling: Span,
    /// The ceiling in hits; of a share, in hits of all replicas.
    reach: Reach,
    /// The period; of a share, that of the limit that it is a share of.
    whole_period: u64,
    /// The windows of a fixed window that follows a calendar.
    windows: Option<Windows>,
    /// The longest wait of hits of a token bucket, in microseconds.
    max_wait: u32,
}

/// The maximum lag, in hits, under the limit that wrote the state of a bucket: burst plus debt.
///
/// Each state stores the reach of its writer. A state beyond that reach dates from before the clock
/// stepped back and is clamped. A state within it was written by a larger limit and must stay
/// unchanged.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Reach(u32);

impl Reach {
    /// Unlimited debt, or at least 2^32 - 1 hits. Bounded only by 2^52 microseconds.
    pub const UNBOUNDED: Self = Self(u32::MAX);

    /// The reach of a limit whose burst plus debt is `hits`.
    pub const fn of_hits(hits: u64) -> Self {
        Self(if hits < u32::MAX as u64 { hits as u32 } else { u32::MAX })
    }

    /// The number of hits, as states store it.
    pub const fn to_bits(self) -> u32 {
        self.0
    }

    /// The reverse of [`to_bits`](Self::to_bits).
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }
}

impl Limit {
    /// The maximum number of slots of a sliding window.
    pub const MAX_SLOTS: u32 = 1_000;

    /// Makes a limit of `requests` per `period`. 0 requests blocks everything but a request that
    /// tests a limit that settles before anything is booked.
    pub fn new(
        requests: u32,
        period: Duration,
        algorithm: Algorithm,
        charge: Charge,
    ) -> Result<Self, LimitError> {
        Self::for_each(1, requests, period, algorithm, charge)
    }

    /// The limit by which each of `replicas` replicas decides. The algorithm and the charge have
    /// its own numbers. The rate is that of all replicas, and a bucket divides it.
    ///
    /// A state of a bucket means the same to the limits of any number of replicas: its rate is that
    /// of all, and its reach counts hits of all.
    pub(super) fn for_each(
        replicas: u32,
        requests: u32,
        period: Duration,
        algorithm: Algorithm,
        charge: Charge,
    ) -> Result<Self, LimitError> {
        let whole_period = u64::try_from(period.as_micros()).map_err(|_| LimitError::Period)?;
        if whole_period == 0 || whole_period > MAX_SPAN_US {
            return Err(LimitError::Period);
        }
        let period = match algorithm {
            Algorithm::TokenBucket { .. } => {
                whole_period.saturating_mul(replicas.into()).min(MAX_SPAN_US)
            }
            Algorithm::SlidingWindow { slots } if slots == 0 || slots > Self::MAX_SLOTS => {
                return Err(LimitError::Slots);
            }
            Algorithm::SlidingWindow { .. } | Algorithm::FixedWindow | Algorithm::Concurrency => {
                whole_period
            }
        };
        let (full, ceiling, reach) = (Span::default(), Span::default(), Reach::of_hits(0));
        let (windows, max_wait) = (None, 0);
        let mut limit = Self {
            requests,
            period,
            algorithm,
            charge,
            full,
            ceiling,
            reach,
            whole_period,
            windows,
            max_wait,
        };
        if let Algorithm::TokenBucket { burst } = algorithm {
            limit.fill_bucket(burst, replicas)?;
        }
        Ok(limit)
    }

    fn fill_bucket(&mut self, burst: u32, replicas: u32) -> Result<(), LimitError> {
        if (burst == 0) != (self.requests == 0) {
            return Err(LimitError::Burst);
        }
        self.full = self.cost(burst.into());
        if self.full.micros > MAX_SPAN_US {
            return Err(LimitError::Fill);
        }
        let reach = |hits: u64| Reach::of_hits(hits.saturating_mul(replicas.into()));
        (self.ceiling, self.reach) = match self.charge {
            Charge::Admitted => (self.full, reach(burst.into())),
            Charge::Always { max_debt: None }
            | Charge::Settled { max_debt: None }
            | Charge::Held { max_debt: None } => (Span::SATURATED, Reach::UNBOUNDED),
            Charge::Always { max_debt: Some(debt) }
            | Charge::Settled { max_debt: Some(debt) }
            | Charge::Held { max_debt: Some(debt) } => {
                let hits = u64::from(burst).saturating_add(debt);
                (self.cost(hits), reach(hits))
            }
        };
        Ok(())
    }

    /// The same limit, whose fixed windows are these. The period stays as a rough length. Limits of
    /// other algorithms have no such windows.
    #[must_use]
    pub fn on(self, windows: Windows) -> Self {
        let windows = (self.algorithm == Algorithm::FixedWindow).then_some(windows);
        Self { windows, ..self }
    }

    /// The windows of a calendar, if this limit follows one.
    pub const fn windows(&self) -> Option<Windows> {
        self.windows
    }

    /// The fixed window that `now` is in.
    pub fn window(&self, now: Timestamp) -> Window {
        if let Some(windows) = self.windows {
            return windows.at(now);
        }
        let start = now.floor(self.period);
        let end = start.plus_micros(self.period);
        Window { start, end, next_end: end.plus_micros(self.period) }
    }

    /// The end of the fixed window that begins at `start`.
    pub(super) fn end_of(&self, start: Timestamp) -> Timestamp {
        match self.windows {
            Some(windows) => windows.end_of(start),
            None => start.plus_micros(self.period),
        }
    }

    /// The hits admitted per period: n.
    pub const fn requests(&self) -> u32 {
        self.requests
    }

    /// The hits that refill per period. Under a limit of 0 that settles, debt drains as if one did.
    pub const fn rate(&self) -> u32 {
        if self.requests == 0 { 1 } else { self.requests }
    }

    /// The period in microseconds: P.
    pub const fn period_micros(&self) -> u64 {
        self.period
    }

    /// The period.
    pub const fn period(&self) -> Duration {
        Duration::from_micros(self.period)
    }

    /// The algorithm and its parameters.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The condition under which hits are charged.
    pub const fn charge(&self) -> Charge {
        self.charge
    }

    /// True if hits are charged even when the request is denied.
    pub const fn always_charges(&self) -> bool {
        matches!(self.charge, Charge::Always { .. })
    }

    /// True if hits of [`Hits::Book`](super::Hits::Book) are meant for this limit.
    pub const fn settles(&self) -> bool {
        matches!(self.charge, Charge::Settled { .. })
    }

    /// True if admissions are estimates, which are settled by the cost.
    pub const fn holds(&self) -> bool {
        matches!(self.charge, Charge::Held { .. }) || self.is_concurrency()
    }

    /// True if the limit is on requests at a time.
    pub const fn is_concurrency(&self) -> bool {
        matches!(self.algorithm, Algorithm::Concurrency)
    }

    /// The most that may count as used once `hits` are booked: a debt of one capacity, or of the
    /// hits themselves if they are more.
    pub(super) fn most_booked(&self, hits: u64) -> u64 {
        self.capacity().saturating_add(hits.max(self.capacity())).min(SATURATION)
    }

    /// The maximum number of hits that fit at once: B.
    pub const fn capacity(&self) -> u64 {
        match self.algorithm {
            Algorithm::TokenBucket { burst } => burst as u64,
            Algorithm::SlidingWindow { .. } | Algorithm::FixedWindow | Algorithm::Concurrency => {
                self.requests as u64
            }
        }
    }

    /// True if no hit can ever pass, so that there is no counter. A limit of 0 that settles has
    /// one: hits are booked in it.
    pub const fn is_blocked(&self) -> bool {
        self.requests == 0 && !self.settles()
    }

    /// The cost of `hits` in a token bucket: hits * P / n, exact; saturates at 2^52 microseconds.
    pub fn cost(&self, hits: u64) -> Span {
        let rate = u64::from(self.rate());
        let total = u128::from(hits) * u128::from(self.period);
        // Most fit, and a division of 64 bits is one instruction.
        let (micros, remainder) = if let Ok(total) = u64::try_from(total) {
            (Some(total / rate), total % rate)
        } else {
            let rate = u128::from(rate);
            (u64::try_from(total / rate).ok(), (total % rate) as u64)
        };
        match micros {
            Some(micros) if micros < SATURATION => Span { micros, remainder },
            _ => Span::SATURATED,
        }
    }

    /// The span that must fit for hits to pass: the cost of a burst, and the longest wait.
    pub const fn full(&self) -> Span {
        self.full
    }

    /// The maximum lag of a bucket under this limit.
    pub const fn ceiling(&self) -> Span {
        self.ceiling
    }

    /// The ceiling in hits, as states written under this limit store it.
    pub const fn reach(&self) -> Reach {
        self.reach
    }

    /// The maximum lag under a limit of `reach` with this period and rate `written`. Rounded up,
    /// except for this limit itself.
    ///
    /// Computed in doubles and in this order, because the script does the same.
    pub(super) fn furthest(&self, reach: Reach, written: u32) -> Span {
        if reach == Reach::UNBOUNDED {
            return Span::SATURATED;
        }
        if reach == self.reach && written == self.rate() {
            return self.ceiling;
        }
        let micros = f64::from(reach.0) * self.whole_period as f64 / f64::from(written);
        let micros = (micros * (1.0 + f64::EPSILON * 4.0)).floor() as u64;
        Span { micros: micros.saturating_add(1).min(SATURATION), remainder: 0 }
    }

    /// The width in microseconds of the cells in which a sliding window gathers hits into one run.
    /// A limit with no more hits than slots logs every hit separately.
    pub const fn run_width(&self) -> u64 {
        match self.algorithm {
            Algorithm::SlidingWindow { slots } if self.requests > slots => {
                self.period.div_ceil(slots as u64)
            }
            _ => 1,
        }
    }
}
