//! Each row of the table of states, on times that the test makes.

use super::*;

const DEADLINE: Duration = Duration::from_millis(10);

/// A breaker, and the time that it sees.
struct Bench {
    breaker: Breaker,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        Self { breaker: Breaker::new(DEADLINE), now: Instant::now() }
    }

    /// In use, as after a good start.
    fn closed() -> Self {
        let mut bench = Self::new();
        bench.breaker.connected(bench.now);
        assert!(!bench.probed_after(1));
        bench.breaker.settled(bench.now);
        assert_eq!(bench.state(), BreakerState::Closed);
        bench
    }

    const fn state(&self) -> BreakerState {
        self.breaker.state()
    }

    fn pass(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
    }

    /// The probe that was sent now is answered `ms` later.
    fn probed_after(&mut self, ms: u64) -> bool {
        self.pass(ms);
        self.breaker.probed(true, self.now)
    }

    /// Lets the time pass until the breaker does something by itself; the milliseconds it took.
    fn wait(&mut self, in_flight: usize) -> (u128, bool) {
        let until = self.breaker.alarm().expect("nothing ends this state");
        let waited = until.saturating_duration_since(self.now).as_millis();
        self.now = until;
        (waited, self.breaker.tick(in_flight, self.now))
    }
}

#[test]
fn begins_down_and_is_used_after_a_probe_and_the_telling() {
    let mut bench = Bench::new();
    assert_eq!(bench.state(), BreakerState::Down);
    bench.breaker.connected(bench.now);
    assert_eq!(bench.state(), BreakerState::Probing);
    assert!(!bench.probed_after(5), "one probe is enough");
    assert_eq!(bench.state(), BreakerState::Telling);
    bench.breaker.settled(bench.now);
    assert_eq!(bench.state(), BreakerState::Closed);
    assert_eq!(bench.breaker.alarm(), None);
}

#[test]
fn telling_ends_after_a_second_whatever_is_untold() {
    let mut bench = Bench::new();
    bench.breaker.connected(bench.now);
    bench.probed_after(1);
    assert_eq!(bench.wait(0), (1_000, false));
    assert_eq!(bench.state(), BreakerState::Closed);
}

#[test]
fn late_frame_opens_and_its_reply_is_the_probe() {
    let mut bench = Bench::closed();
    bench.breaker.overdue(bench.now);
    assert_eq!(bench.state(), BreakerState::Overdue);
    assert!(!bench.breaker.landed(1, bench.now), "another frame is under way");
    assert_eq!(bench.state(), BreakerState::Overdue);
    assert!(!bench.breaker.landed(0, bench.now));
    assert_eq!(bench.state(), BreakerState::Telling);
}

#[test]
fn lost_connection_is_down_in_every_state() {
    let mut bench = Bench::closed();
    bench.breaker.overdue(bench.now);
    bench.breaker.lost();
    assert_eq!((bench.state(), bench.breaker.alarm()), (BreakerState::Down, None));
    bench.breaker.connected(bench.now);
    bench.breaker.lost();
    assert_eq!(bench.state(), BreakerState::Down);
}

#[test]
fn late_probe_is_followed_by_holds_that_double() {
    let mut bench = Bench::new();
    bench.breaker.connected(bench.now);
    let mut holds = Vec::new();
    for _ in 0..8 {
        assert_eq!(bench.wait(1), (5, false), "half a deadline");
        assert_eq!(bench.state(), BreakerState::Held);
        let (hold, probe) = bench.wait(0);
        assert!(probe);
        assert_eq!(bench.state(), BreakerState::Probing);
        holds.push(hold);
    }
    for (i, hold) in holds.iter().enumerate() {
        let whole = (20_u128 << i).min(1_000);
        assert!((whole / 2..=whole).contains(hold), "{holds:?}");
    }
}

#[test]
fn hold_outlasts_a_probe_that_is_still_under_way() {
    let mut bench = Bench::new();
    bench.breaker.connected(bench.now);
    bench.wait(1);
    for _ in 0..3 {
        let (_, probe) = bench.wait(1);
        assert!(!probe);
        assert_eq!(bench.state(), BreakerState::Held);
    }
    assert!(bench.wait(0).1);
}

#[test]
fn probe_that_is_answered_late_or_by_an_error_closes_nothing() {
    for (ms, well) in [(6, true), (1, false)] {
        let mut bench = Bench::new();
        bench.breaker.connected(bench.now);
        bench.pass(ms);
        assert!(!bench.breaker.probed(well, bench.now));
        assert_eq!(bench.state(), BreakerState::Held, "{ms} {well}");
    }
}

#[test]
fn fifth_of_late_calls_opens_and_three_probes_close() {
    let mut bench = Bench::closed();
    bench.breaker.answered(36, bench.now);
    bench.breaker.late(9, 1, bench.now);
    assert_eq!(bench.state(), BreakerState::Closed, "nine late calls may be chance");
    bench.breaker.late(1, 1, bench.now);
    assert_eq!(bench.state(), BreakerState::Overdue);
    assert!(bench.breaker.landed(0, bench.now), "a probe is wanted");
    assert!(bench.probed_after(1) && bench.probed_after(1));
    assert!(!bench.probed_after(1));
    assert_eq!(bench.state(), BreakerState::Telling);
}

#[test]
fn slow_redis_with_nothing_in_flight_is_held_first() {
    let mut bench = Bench::closed();
    bench.breaker.late(10, 0, bench.now);
    assert_eq!(bench.state(), BreakerState::Held);
    assert!(bench.wait(0).1);
    assert!(bench.probed_after(1) && bench.probed_after(1) && !bench.probed_after(1));
}

#[test]
fn few_or_old_late_calls_do_not_open() {
    let mut bench = Bench::closed();
    bench.breaker.answered(1_000, bench.now);
    bench.breaker.late(199, 1, bench.now);
    assert_eq!(bench.state(), BreakerState::Closed, "199 of 1199");
    bench.pass(1_100);
    bench.breaker.late(9, 1, bench.now);
    assert_eq!(bench.state(), BreakerState::Closed, "of the last second");
}

#[test]
fn holds_are_short_again_after_a_stable_time() {
    let hold_after = |stable_ms: u64| {
        let mut bench = Bench::new();
        bench.breaker.connected(bench.now);
        for _ in 0..6 {
            bench.wait(1);
            bench.wait(0);
        }
        bench.probed_after(1);
        bench.breaker.settled(bench.now);
        bench.pass(stable_ms);
        bench.breaker.late(10, 0, bench.now);
        bench.wait(0).0
    };
    assert!(hold_after(2_000) <= 20);
    assert!(hold_after(1_900) >= 500);
}

#[test]
fn probe_is_not_late_because_this_process_is() {
    let mut bench = Bench::new();
    bench.breaker.connected(bench.now);
    bench.pass(15);
    assert!(!bench.breaker.tick(1, bench.now));
    assert_eq!(bench.state(), BreakerState::Probing, "its answer may wait to be read");
    bench.pass(1);
    assert!(!bench.breaker.probed(true, bench.now));
    assert_eq!(bench.state(), BreakerState::Telling);
}
