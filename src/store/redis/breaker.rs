//! The circuit breaker of one connection. Pure: it gets events and the time, and says what to do.
//!
//! | state | new calls | left when |
//! |---|---|---|
//! | closed | queued and sent | a frame is unanswered for a deadline: overdue. At least 10 and a fifth of the calls of the last second were late: overdue, slow |
//! | overdue | refused | all frames in flight have landed. The late reply shows that Redis works: telling. If it was slow: probing |
//! | held | refused | its time is over and nothing is in flight: probing |
//! | probing | refused | the script on an empty frame is answered within half a deadline, three times in a row if Redis was slow: telling. Late: held |
//! | telling | refused | what was decided without Redis has been told to it, or a second is over: closed |
//! | down | refused | connected and logged in: probing |
//!
//! No request is a probe: while the breaker is not closed, calls are refused at once.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use tokio::time::Instant;

use crate::store::Deadline;

/// The span over which late calls are counted.
const SPAN: Duration = Duration::from_secs(1);
/// The counts of [`SPAN`] are kept in steps of this length.
const STEP: Duration = Duration::from_millis(100);
/// So many late calls may be chance.
const MIN_LATE: u32 = 10;
/// One call in so many may be late.
const LATE_SHARE: u32 = 5;
/// The probes in a row that a slow Redis has to answer in time.
const SLOW_PROBES: u8 = 3;
/// The bounds of a hold.
const MIN_HOLD: Duration = Duration::from_millis(20);
const MAX_HOLD: Duration = Duration::from_secs(1);
/// Closed for so long, the next hold is short again.
const STABLE: Duration = Duration::from_secs(2);
/// The longest time for which calls are refused because charges are being told.
const MAX_TELLING: Duration = Duration::from_secs(1);

/// The state of a breaker, as metrics name it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum BreakerState {
    /// There is no connection.
    Down,
    /// A probe is under way.
    Probing,
    /// Waits before the next probe.
    Held,
    /// A frame is late.
    Overdue,
    /// Charges made meanwhile are being told.
    Telling,
    /// Calls are sent.
    Closed,
}

impl BreakerState {
    /// Every state.
    pub const ALL: [Self; 6] =
        [Self::Down, Self::Probing, Self::Held, Self::Overdue, Self::Telling, Self::Closed];

    /// The name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Probing => "probing",
            Self::Held => "held",
            Self::Overdue => "overdue",
            Self::Telling => "telling",
            Self::Closed => "closed",
        }
    }
}

/// The breaker of a connection. It begins down.
#[derive(Debug)]
pub(super) struct Breaker {
    state: BreakerState,
    /// The time at which the state ends by itself: a hold, a probe that is late, the telling.
    until: Option<Deadline>,
    /// Half of it is the time of a probe.
    deadline: Duration,
    slow: bool,
    /// Probes still to be answered.
    probes: u8,
    hold: Duration,
    closed_at: Option<Instant>,
    recent: Recent,
    random: RandomState,
    holds: u64,
}

impl Breaker {
    pub(super) fn new(deadline: Duration) -> Self {
        Self {
            state: BreakerState::Down,
            until: None,
            deadline,
            slow: false,
            probes: 0,
            hold: MIN_HOLD,
            closed_at: None,
            recent: Recent::default(),
            random: RandomState::new(),
            holds: 0,
        }
    }

    pub(super) const fn state(&self) -> BreakerState {
        self.state
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state == BreakerState::Closed
    }

    /// The time at which [`tick`](Self::tick) has something to do.
    pub(super) fn alarm(&self) -> Option<Instant> {
        self.until.map(Deadline::due)
    }

    /// The connection is open and logged in. A probe must be sent.
    pub(super) fn connected(&mut self, now: Instant) {
        self.slow = false;
        self.probe(1, now);
    }

    /// The connection is lost.
    pub(super) fn lost(&mut self) {
        self.enter(BreakerState::Down, None);
    }

    /// A frame has been unanswered for a deadline.
    pub(super) fn overdue(&mut self, now: Instant) {
        if self.is_closed() {
            self.open(false, now);
            self.enter(BreakerState::Overdue, None);
        }
    }

    /// So many calls were answered in time.
    pub(super) fn answered(&mut self, calls: u32, now: Instant) {
        self.recent.add(calls, 0, now);
    }

    /// So many calls were late. `in_flight` commands are unanswered.
    pub(super) fn late(&mut self, calls: u32, in_flight: usize, now: Instant) {
        self.recent.add(calls, calls, now);
        if self.is_closed() && self.recent.is_slow() {
            self.open(true, now);
            if in_flight == 0 { self.hold(now) } else { self.enter(BreakerState::Overdue, None) }
        }
    }

    /// A reply has arrived; `in_flight` commands are still unanswered. Returns true if a probe must
    /// be sent.
    pub(super) fn landed(&mut self, in_flight: usize, now: Instant) -> bool {
        if self.state != BreakerState::Overdue || in_flight > 0 {
            return false;
        }
        if self.slow {
            self.probe(SLOW_PROBES, now);
        } else {
            self.tell(now);
        }
        self.slow
    }

    /// The probe was answered, `well` if not by an error. Returns true if another must be sent.
    pub(super) fn probed(&mut self, well: bool, now: Instant) -> bool {
        if self.state != BreakerState::Probing {
            return false;
        }
        let in_time = |until: Deadline| now <= until.due() || until.extended(now).is_some();
        if !well || !self.until.is_some_and(in_time) {
            self.hold(now);
            return false;
        }
        match self.probes.saturating_sub(1) {
            0 => self.tell(now),
            left => self.probe(left, now),
        }
        self.state == BreakerState::Probing
    }

    /// Nothing is left to be told.
    pub(super) fn settled(&mut self, now: Instant) {
        if self.state == BreakerState::Telling {
            self.close(now);
        }
    }

    /// Ends a state whose time is over; `in_flight` commands are unanswered. Returns true if a
    /// probe must be sent.
    pub(super) fn tick(&mut self, in_flight: usize, now: Instant) -> bool {
        let Some(until) = self.until.filter(|until| until.due() <= now) else { return false };
        // The answer to a probe may be there and not be read yet.
        if let Some(extended) = until.extended(now) {
            self.until = Some(extended);
            return false;
        }
        match self.state {
            BreakerState::Probing => self.hold(now),
            // The answer under way shows more than another probe; the connection ends without it.
            BreakerState::Held if in_flight > 0 => {
                self.until = Some((now + MIN_HOLD).into());
            }
            BreakerState::Held => {
                self.probe(if self.slow { SLOW_PROBES } else { 1 }, now);
                return true;
            }
            BreakerState::Telling => self.close(now),
            BreakerState::Down | BreakerState::Overdue | BreakerState::Closed => self.until = None,
        }
        false
    }

    fn open(&mut self, slow: bool, now: Instant) {
        self.slow = slow;
        if self.closed_at.is_some_and(|at| now.saturating_duration_since(at) >= STABLE) {
            self.hold = MIN_HOLD;
        }
    }

    fn hold(&mut self, now: Instant) {
        self.holds += 1;
        let share = self.random.hash_one(self.holds) % 1_001;
        let hold = self.hold.mul_f64(0.5 + share as f64 / 2_000.0);
        self.hold = (self.hold * 2).min(MAX_HOLD);
        self.enter(BreakerState::Held, Some((now + hold).into()));
    }

    fn probe(&mut self, probes: u8, now: Instant) {
        self.probes = probes;
        let until = Deadline::after(now, self.deadline / 2, None);
        self.enter(BreakerState::Probing, Some(until));
    }

    fn tell(&mut self, now: Instant) {
        self.enter(BreakerState::Telling, Some((now + MAX_TELLING).into()));
    }

    fn close(&mut self, now: Instant) {
        self.recent = Recent::default();
        self.closed_at = Some(now);
        self.enter(BreakerState::Closed, None);
    }

    fn enter(&mut self, state: BreakerState, until: Option<Deadline>) {
        self.state = state;
        self.until = until;
    }
}

/// The calls that ended in the last second.
#[derive(Debug, Default)]
struct Recent {
    /// Oldest first: begin of the step, calls, late calls.
    steps: VecDeque<(Instant, u32, u32)>,
}

impl Recent {
    fn add(&mut self, calls: u32, late: u32, now: Instant) {
        while self.steps.front().is_some_and(|(begin, ..)| *begin + SPAN <= now) {
            self.steps.pop_front();
        }
        match self.steps.back_mut() {
            Some((begin, all, all_late)) if now < *begin + STEP => {
                *all += calls;
                *all_late += late;
            }
            _ => self.steps.push_back((now, calls, late)),
        }
    }

    fn is_slow(&self) -> bool {
        let (calls, late) =
            self.steps.iter().fold((0_u32, 0_u32), |sum, step| (sum.0 + step.1, sum.1 + step.2));
        late >= MIN_LATE && late.saturating_mul(LATE_SHARE) >= calls
    }
}

#[cfg(test)]
mod tests;
