//! An upstream with one queue, behind a limit whose scale a controller moves once a second. It also
//! works for callers who gave up. Ticks of 10 ms.

use std::collections::VecDeque;
use std::time::Duration;

use fastrand::Rng;

use crate::adaptive::{Controller, Second};

const TICK: f64 = 0.01;
const TICKS: usize = 100;

/// The time after which a caller gives up.
const TIMEOUT: f64 = 1.0;

/// The time of a request without a queue.
const SERVICE: f64 = 0.05;

pub(super) const TARGET: Duration = Duration::from_millis(300);

/// A number that depends on the time.
pub(super) type Course = fn(f64) -> f64;

/// The limit of a trial.
#[derive(Clone, Copy, Debug)]
pub(super) enum Limited {
    /// A token bucket.
    Rate { per_second: f64, burst: f64 },
    /// So many at a time.
    AtATime(f64),
}

/// A run of the upstream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trial {
    pub(super) seconds: usize,
    pub(super) limit: Limited,
    pub(super) offered: Course,
    pub(super) capacity: Course,
    /// Of those that gave up, come again soon.
    pub(super) retried: f64,
    /// Of those that were denied, come again later.
    pub(super) denied_again: f64,
    /// Ends that are not reported.
    pub(super) lost: f64,
    /// Requests that fail for no reason.
    pub(super) noise: f64,
    /// Ticks from the end of a second until its scale is in force.
    pub(super) lag: usize,
    pub(super) seed: u64,
}

/// By second.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) good: Vec<u64>,
    pub(super) bad: u64,
    pub(super) scales: Vec<f64>,
    pub(super) cuts: usize,
    pub(super) blind: usize,
}

impl Ran {
    /// The goodput between two seconds as a share of what was possible.
    pub(super) fn share(&self, from: usize, to: usize, possible: f64) -> f64 {
        let good: u64 = self.good[from..to].iter().sum();
        good as f64 / (to - from) as f64 / possible
    }

    /// Seconds after `from` until five in a row reach 95 % of `possible`.
    pub(super) fn back_after(&self, from: usize, possible: f64) -> Option<usize> {
        let fine = |second: &u64| *second as f64 >= 0.95 * possible;
        let mut windows = self.good[from..].windows(5);
        windows.position(|window| window.iter().all(fine))
    }
}

struct Backend {
    trial: Trial,
    random: Rng,
    /// The ticks at which requests came.
    queue: VecDeque<usize>,
    /// The ticks at which requests that are served end.
    served: VecDeque<usize>,
    live: usize,
    tokens: f64,
    credit: f64,
    /// Requests that come again, by tick.
    again: Vec<u32>,
    second: Second,
}

impl Trial {
    pub(super) fn run(self, mut controller: Option<Controller>) -> Ran {
        let ticks = self.seconds * TICKS;
        let mut backend = Backend {
            trial: self,
            random: Rng::with_seed(self.seed),
            queue: VecDeque::new(),
            served: VecDeque::new(),
            live: 0,
            tokens: match self.limit {
                Limited::Rate { burst, .. } => burst,
                Limited::AtATime(_) => 0.0,
            },
            credit: 0.0,
            again: vec![0; ticks + 1_000],
            second: Second::default(),
        };
        let mut ran =
            Ran { good: vec![0; self.seconds], bad: 0, scales: Vec::new(), cuts: 0, blind: 0 };
        let (mut scale, mut next) = (1.0, VecDeque::<(usize, f64)>::new());
        for tick in 0..ticks {
            while let Some((_, due)) = next.pop_front_if(|(at, _)| *at <= tick) {
                scale = due;
            }
            backend.admit(tick, scale);
            backend.serve(tick, &mut ran);
            if tick % TICKS == TICKS - 1 {
                let second = std::mem::take(&mut backend.second);
                if let Some(controller) = &mut controller {
                    let step = controller.observe(&second, Duration::from_secs(1));
                    ran.cuts += usize::from(step.cut.is_some());
                    ran.blind += usize::from(step.blind);
                    next.push_back((tick + 1 + self.lag, f64::from(step.scale) / 1e3));
                }
                ran.scales.push(scale);
            }
        }
        ran
    }
}

impl Backend {
    fn admit(&mut self, tick: usize, scale: f64) {
        while self.served.pop_front_if(|end| *end <= tick).is_some() {
            self.live -= 1;
        }
        let wanted = poisson(&mut self.random, (self.trial.offered)(tick as f64 * TICK) * TICK);
        let wanted = wanted + self.again[tick] as usize;
        let admitted = match self.trial.limit {
            Limited::Rate { per_second, burst } => {
                let filled = self.tokens + per_second * scale * TICK;
                self.tokens = filled.min(burst * scale);
                let admitted = wanted.min(self.tokens as usize);
                self.tokens -= admitted as f64;
                admitted
            }
            Limited::AtATime(most) => {
                wanted.min(((most * scale) as usize).saturating_sub(self.live))
            }
        };
        self.live += admitted;
        self.second.admitted += admitted as u64;
        self.queue.extend(std::iter::repeat_n(tick, admitted));
        for _ in admitted..wanted {
            if self.random.f64() < self.trial.denied_again {
                let later = tick + self.random.usize(100..=300);
                self.again[later] += 1;
            }
        }
    }

    fn serve(&mut self, tick: usize, ran: &mut Ran) {
        self.credit += (self.trial.capacity)(tick as f64 * TICK) * TICK;
        while self.credit >= 1.0 {
            let Some(came) = self.queue.pop_front() else {
                self.credit = self.credit.min(1.0);
                return;
            };
            self.credit -= 1.0;
            self.end(tick, came, ran);
        }
    }

    fn end(&mut self, tick: usize, came: usize, ran: &mut Ran) {
        let waited = (tick - came) as f64 * TICK;
        let gave_up = waited >= TIMEOUT;
        let failed = gave_up || self.random.f64() < self.trial.noise;
        if failed {
            ran.bad += 1;
        } else {
            ran.good[tick / TICKS] += 1;
        }
        self.served.push_back(tick + (SERVICE / TICK) as usize);
        if self.random.f64() >= self.trial.lost {
            let time = Duration::from_secs_f64((waited + SERVICE).min(TIMEOUT));
            self.second.end(1, Some(time), failed, Some(TARGET));
        }
        if gave_up && self.random.f64() < self.trial.retried {
            let soon = tick + self.random.usize(10..=50);
            self.again[soon] += 1;
        }
    }
}

fn poisson(random: &mut Rng, mean: f64) -> usize {
    let (least, mut count, mut product) = ((-mean).exp(), 0, random.f64());
    while product > least {
        product *= random.f64();
        count += 1;
    }
    count
}
