//! Limiters to test the checker with: right ones, and impostors whose fault is known.
//!
//! Time is simulated and the seeds are fixed, so that every run sees the same traces.

use tollgate::domain::{Counter, Hits, Limit, Timestamp};
use tollgate::verify::Trace;

/// The start: 700 ms into a window of a second.
const START_US: u64 = 1_700_000_000_700_000;

/// The time that answers take, in microseconds: a quick service and a slow one.
pub(super) const QUICK: std::ops::Range<u64> = 200..2_000;
pub(super) const SLOW: std::ops::Range<u64> = 2_000..40_000;

/// Decisions of `limit` on calls that arrive at random, `rate` a second.
pub(super) fn calls(
    limit: &Limit,
    rate: u32,
    seconds: u64,
    answers: std::ops::Range<u64>,
) -> Trace {
    let mut random = fastrand::Rng::with_seed(1);
    let (mut counter, mut trace) = (Counter::Empty, Trace::default());
    let mut now = START_US;
    while now < START_US + seconds * 1_000_000 {
        let gap = -(1.0 - random.f64()).ln() * 1e6 / f64::from(rate);
        now += gap as u64 + 1;
        let passed = counter.step(limit, Hits::Take(1), Timestamp::from_micros(now)).passed;
        let add = if passed { Trace::admit } else { Trace::refuse };
        add_call(&mut trace, add, now, &mut random, &answers);
    }
    trace
}

/// Adds a call that was decided at `now`.
fn add_call(
    trace: &mut Trace,
    add: fn(&mut Trace, Timestamp, Timestamp, u64),
    now: u64,
    random: &mut fastrand::Rng,
    answers: &std::ops::Range<u64>,
) {
    let mut way = || random.u64(answers.clone()) / 2;
    let (there, back) = (way(), way());
    add(trace, Timestamp::from_micros(now - there), Timestamp::from_micros(now + back), 1);
}

/// Replicas that lease tokens of a bucket of 100 tokens, 10 a second.
#[derive(Debug)]
pub(super) struct Leases {
    /// Counts the bucket as full no earlier than outstanding tokens could refill, as tollgate does.
    /// Without it, tokens that are spent late come on top of those that refilled meanwhile.
    has_floor: bool,
    /// The time at which the bucket is full.
    full_at: u64,
    /// Tokens held by replicas: the end of the lease, and how many are left.
    held: Vec<(u64, u64)>,
    /// The same as the bucket counts them, which does not see them spent.
    outstanding: Vec<(u64, u64)>,
}

const BURST: u64 = 100;
/// The time in which a token refills.
const TOKEN_US: u64 = 100_000;
const REPLICAS: usize = 4;
const LEASED: u64 = 10;
const LEASE_US: u64 = 4_000_000;

impl Leases {
    /// The admissions of 200 seconds, in which all replicas idle, gather leases, or spend at once.
    pub(super) fn admissions(has_floor: bool, seed: u64) -> Trace {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut noise = fastrand::Rng::with_seed(seed);
        let (held, outstanding) = (Vec::new(), Vec::new());
        let mut leases = Self { has_floor, full_at: 0, held, outstanding };
        let (mut trace, mut mood) = (Trace::default(), 0);
        for step in 0..20_000 {
            let now = START_US + step * 10_000;
            leases.expire(now);
            // A little less than a lease: the bucket has refilled when tokens are spent.
            if step % 390 == 0 {
                mood = random.u32(0..4);
            }
            if mood != 3 {
                leases.grant(now);
            }
            let spent = if mood == 1 { leases.spend(now) } else { 0 };
            for _ in 0..spent {
                add_call(&mut trace, Trace::admit, now, &mut noise, &QUICK);
            }
        }
        trace
    }

    fn expire(&mut self, now: u64) {
        self.held.retain(|(until, left)| *until > now && *left > 0);
        while let Some((until, _)) = self.outstanding.first().filter(|(until, _)| *until <= now) {
            if self.has_floor {
                self.full_at = self.full_at.max(until + self.outstanding_tokens() * TOKEN_US);
            }
            self.outstanding.remove(0);
        }
    }

    fn grant(&mut self, now: u64) {
        if self.held.len() < REPLICAS && self.takes(LEASED, now) {
            self.held.push((now + LEASE_US, LEASED));
            self.outstanding.push((now + LEASE_US, LEASED));
        }
    }

    /// Spends all that is held, then what the bucket has. Returns the hits admitted.
    fn spend(&mut self, now: u64) -> u64 {
        let mut spent = self.held.drain(..).map(|(_, left)| left).sum();
        while self.takes(1, now) {
            spent += 1;
        }
        spent
    }

    fn takes(&mut self, tokens: u64, now: u64) -> bool {
        let floor = if self.has_floor { self.outstanding_tokens() * TOKEN_US } else { 0 };
        let full_at = self.full_at.max(now + floor) + tokens * TOKEN_US;
        let fits = full_at <= now + BURST * TOKEN_US;
        if fits {
            self.full_at = full_at;
        }
        fits
    }

    fn outstanding_tokens(&self) -> u64 {
        self.outstanding.iter().map(|(_, tokens)| tokens).sum()
    }
}
