//! A limit: so many hits per period, by one of three algorithms, with its arithmetic worked out once.
//!
//! Rates are exact rationals. One hit of a token bucket costs P/n microseconds, which is kept as a quotient
//! and a remainder and never truncated: at 700 000 hits per second a truncated interval would admit 43 %
//! too much.

use std::fmt;
use std::time::Duration;

use super::SATURATION;

/// Periods and the time to fill a bucket end here, 2^51 microseconds (71 years).
const LONGEST: u64 = 1 << 51;

/// The word an operator writes after "requests per".
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
    /// 7 days; aligned windows begin on a Thursday, as 1970-01-01 was one.
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

    /// The longest period a limit may have: ten years.
    pub const LONGEST_PERIOD: Duration = Duration::from_hours(10 * 365 * 24);

    /// The unit's length in seconds.
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

    /// The unit in lower case, as policies write it.
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

    /// The unit of that name in any case.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|unit| unit.name().eq_ignore_ascii_case(name))
    }

    /// `multiplier` units as a period, or nothing when that is zero or longer than ten years.
    pub fn period(self, multiplier: u32) -> Option<Duration> {
        let period = Duration::from_secs(self.seconds().checked_mul(multiplier.into())?);
        (multiplier > 0 && period <= Self::LONGEST_PERIOD).then_some(period)
    }
}

/// How hits are counted.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Algorithm {
    /// Refills steadily at the rate, holds at most `burst` tokens.
    TokenBucket {
        /// The most tokens the bucket holds, at least 1.
        burst: u32,
    },
    /// At most so many hits in any window, wherever it begins.
    SlidingWindow {
        /// Into how many runs a window's hits are gathered, at least 1; a denial lasts at most a
        /// slot longer than with a log of every hit.
        slots: u32,
    },
    /// At most so many hits in each window aligned to the epoch.
    FixedWindow,
}

impl Algorithm {
    /// How finely a sliding window slides unless a policy says otherwise.
    pub const DEFAULT_SLOTS: u32 = 10;
}

/// When a claim's hits are charged.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Charge {
    /// Only when the request is admitted.
    #[default]
    Admitted,
    /// In any case, as for a cost that was already spent. A bucket goes into debt.
    Always {
        /// The deepest debt of a token bucket in hits; none: 2^52 microseconds of refill.
        max_debt: Option<u64>,
    },
}

/// Why no limit can be made of these numbers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LimitError {
    /// The period is zero or above 2^51 microseconds.
    Period,
    /// The bucket would need more than 2^51 microseconds to fill.
    Fill,
    /// A bucket without capacity, or one with capacity that nothing refills.
    Burst,
    /// A sliding window without slots, or with more than [`Limit::MAX_SLOTS`].
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
    /// The rest, in n-ths of a microsecond.
    pub remainder: u64,
}

impl Span {
    /// The longest span that anything writes.
    pub(super) const SATURATED: Self = Self { micros: SATURATION, remainder: 0 };

    /// The sum of two spans of the rate `rate`.
    pub(super) fn plus(self, other: Self, rate: u32) -> Self {
        let rate = u64::from(rate);
        let remainder = self.remainder + other.remainder;
        let carry = u64::from(remainder >= rate);
        Self { micros: self.micros + other.micros + carry, remainder: remainder - carry * rate }
    }

    /// The difference of two spans of the rate `rate`, at least nothing.
    pub(super) fn minus(self, other: Self, rate: u32) -> Self {
        if self <= other {
            return Self::default();
        }
        let borrow = u64::from(self.remainder < other.remainder);
        let remainder = self.remainder + borrow * u64::from(rate) - other.remainder;
        Self { micros: self.micros - other.micros - borrow, remainder }
    }
}

/// So many requests per period. Made by [`Limit::new`], which refuses what cannot be counted exactly.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limit {
    requests: u32,
    period: u64,
    algorithm: Algorithm,
    charge: Charge,
    /// The time a full bucket takes to drain at the rate.
    full: Span,
    /// As far ahead of now as this limit writes a bucket's state: `full` and the debt allowed.
    ceiling: Span,
    /// The same in hits.
    reach: Reach,
}

/// The most hits by which the limit that wrote a bucket's state lets it lag: burst and debt.
///
/// A state carries the reach of its writer. A state further ahead than that was left behind by a clock that
/// stepped back; a state within it was written by a larger limit and must stay as it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Reach(u32);

impl Reach {
    /// No bound but 2^52 microseconds: debt without a bound, or at least 2^32 - 1 hits.
    pub const UNBOUNDED: Self = Self(u32::MAX);

    /// Burst and debt of `hits`.
    pub const fn of_hits(hits: u64) -> Self {
        Self(if hits < u32::MAX as u64 { hits as u32 } else { u32::MAX })
    }

    /// The number of hits as states store it.
    pub const fn to_bits(self) -> u32 {
        self.0
    }

    /// The reverse of [`to_bits`](Self::to_bits).
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }
}

impl Limit {
    /// The most slots a sliding window may have.
    pub const MAX_SLOTS: u32 = 1_000;

    /// `requests` per `period`; 0 requests blocks.
    pub fn new(
        requests: u32,
        period: Duration,
        algorithm: Algorithm,
        charge: Charge,
    ) -> Result<Self, LimitError> {
        let period = u64::try_from(period.as_micros()).map_err(|_| LimitError::Period)?;
        if period == 0 || period > LONGEST {
            return Err(LimitError::Period);
        }
        let (blank, reach) = (Span::default(), Reach::of_hits(0));
        let mut limit =
            Self { requests, period, algorithm, charge, full: blank, ceiling: blank, reach };
        match algorithm {
            Algorithm::TokenBucket { burst } => limit.fill_bucket(burst)?,
            Algorithm::SlidingWindow { slots } if slots == 0 || slots > Self::MAX_SLOTS => {
                return Err(LimitError::Slots);
            }
            Algorithm::SlidingWindow { .. } | Algorithm::FixedWindow => {}
        }
        Ok(limit)
    }

    fn fill_bucket(&mut self, burst: u32) -> Result<(), LimitError> {
        if (burst == 0) != (self.requests == 0) {
            return Err(LimitError::Burst);
        }
        self.full = self.cost(burst.into());
        if self.full.micros > LONGEST {
            return Err(LimitError::Fill);
        }
        (self.ceiling, self.reach) = match self.charge {
            Charge::Admitted => (self.full, Reach::of_hits(burst.into())),
            Charge::Always { max_debt: None } => (Span::SATURATED, Reach::UNBOUNDED),
            Charge::Always { max_debt: Some(debt) } => {
                let hits = u64::from(burst).saturating_add(debt);
                (self.cost(hits), Reach::of_hits(hits))
            }
        };
        Ok(())
    }

    /// Hits admitted per period: n.
    pub const fn requests(&self) -> u32 {
        self.requests
    }

    /// The period in microseconds: P.
    pub const fn period_micros(&self) -> u64 {
        self.period
    }

    /// The period.
    pub const fn period(&self) -> Duration {
        Duration::from_micros(self.period)
    }

    /// The algorithm and its own numbers.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// When hits are charged.
    pub const fn charge(&self) -> Charge {
        self.charge
    }

    /// Whether hits are charged even when the request is denied.
    pub const fn always_charges(&self) -> bool {
        matches!(self.charge, Charge::Always { .. })
    }

    /// The most hits that fit at once: B.
    pub const fn capacity(&self) -> u64 {
        match self.algorithm {
            Algorithm::TokenBucket { burst } => burst as u64,
            Algorithm::SlidingWindow { .. } | Algorithm::FixedWindow => self.requests as u64,
        }
    }

    /// Whether no hit can ever pass.
    pub const fn is_blocked(&self) -> bool {
        self.requests == 0
    }

    /// What `hits` cost a token bucket: hits * P / n, exactly; saturates at 2^52 microseconds.
    pub fn cost(&self, hits: u64) -> Span {
        let rate = u128::from(self.requests.max(1));
        let total = u128::from(hits) * u128::from(self.period);
        match u64::try_from(total / rate) {
            Ok(micros) if micros < SATURATION => Span { micros, remainder: (total % rate) as u64 },
            _ => Span::SATURATED,
        }
    }

    /// The time a full bucket takes to drain at the rate: the cost of a burst.
    pub const fn full(&self) -> Span {
        self.full
    }

    /// How far ahead of the clock this limit writes a bucket's state.
    pub const fn ceiling(&self) -> Span {
        self.ceiling
    }

    /// The same in hits, as the states that this limit writes carry it.
    pub const fn reach(&self) -> Reach {
        self.reach
    }

    /// The furthest ahead of the clock, at the rate `written`, that a limit of `reach` and of this period
    /// writes a bucket's state; rounded up for any limit but this one.
    ///
    /// In doubles and in this order, because the script does the same.
    pub(super) fn furthest(&self, reach: Reach, written: u32) -> Span {
        if reach == Reach::UNBOUNDED {
            return Span::SATURATED;
        }
        if reach == self.reach && written == self.requests {
            return self.ceiling;
        }
        let micros = f64::from(reach.0) * self.period as f64 / f64::from(written);
        let micros = (micros * (1.0 + f64::EPSILON * 4.0)).floor() as u64;
        Span { micros: micros.saturating_add(1).min(SATURATION), remainder: 0 }
    }

    /// The width in microseconds of the cells in which a sliding window gathers hits into one run. A limit of
    /// at most as many hits as slots keeps every hit apart: it is the full log.
    pub const fn run_width(&self) -> u64 {
        match self.algorithm {
            Algorithm::SlidingWindow { slots } if self.requests > slots => {
                self.period.div_ceil(slots as u64)
            }
            _ => 1,
        }
    }
}
