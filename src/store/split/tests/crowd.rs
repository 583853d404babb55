//! Many split requests at the same time, on a clock and a network that are played: two limits in
//! two slots, one of them used up, and others that ask for the free one alone.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::*;

const SECONDS: u64 = 2;
const CALLERS: usize = 64;
/// The mean time between an answer and the next request of its caller.
const THINK_US: f64 = 2_000.0;
/// Requests per second for the free limit alone: 90 % of what it takes.
const OTHERS: f64 = 900.0;

enum Event {
    /// A caller asks for both limits.
    Ask,
    /// Somebody asks for the free limit.
    AskOne,
    /// An errand of a request arrives at its server.
    Arrive(usize, Errand),
    /// Its answer comes back.
    Answer(usize, Errand, Vec<Reading>, u64),
    /// A receipt arrives.
    GiveBack(Vec<Amendment>),
}

/// The events at the free limit.
enum Logged {
    /// A request has charged it.
    Charged(usize),
    /// Somebody who asked for it alone was refused.
    Refused,
}

struct Request {
    split: Split,
    open: usize,
    receipts: Vec<Amendment>,
    admitted: bool,
}

/// The outcome.
#[derive(Debug)]
struct Seen {
    /// The share of the requests for the free limit alone that were refused although it had room.
    needless: f64,
    /// Requests per second, times the period, admitted beyond the promise of either limit.
    excess: i128,
    admitted: usize,
}

struct Crowd {
    careful: bool,
    limits: [Limit; 2],
    keys: [Key; 2],
    random: fastrand::Rng,
    now: u64,
    events: BinaryHeap<Reverse<(u64, usize)>>,
    due: HashMap<usize, Event>,
    numbers: usize,
    counters: Counters,
    requests: Vec<Request>,
    suspects: HashMap<Key, Instant>,
    shy: Shy,
    log: Vec<(u64, Logged)>,
    others: usize,
    begin: Instant,
}

fn timestamp(micros: u64) -> Timestamp {
    Timestamp::from_micros(1_700_000_000_000_000 + micros)
}

impl Crowd {
    fn new(careful: bool, limits: &[Limit; 2], seed: u64) -> Self {
        Self {
            careful,
            limits: *limits,
            keys: ["{full}", "{free}"].map(|key| Key::new(key.as_bytes())),
            random: fastrand::Rng::with_seed(seed),
            now: 0,
            events: BinaryHeap::new(),
            due: HashMap::new(),
            numbers: 0,
            counters: Counters::default(),
            requests: Vec::new(),
            suspects: HashMap::new(),
            shy: Shy::default(),
            log: Vec::new(),
            others: 0,
            begin: Instant::now(),
        }
    }

    fn instant(&self) -> Instant {
        self.begin + Duration::from_micros(self.now)
    }

    fn later(&mut self, micros: u64, event: Event) {
        self.numbers += 1;
        self.events.push(Reverse((self.now + micros, self.numbers)));
        self.due.insert(self.numbers, event);
    }

    fn travel(&mut self, event: Event) {
        let slow = self.random.u8(0..100) == 0;
        let micros = if slow { 1_000 } else { self.random.u64(80..150) };
        self.later(micros, event);
    }

    fn pause(&mut self, mean_us: f64) -> u64 {
        (-mean_us * (1.0 - self.random.f64()).ln()) as u64
    }

    fn run(mut self) -> Seen {
        for _ in 0..CALLERS {
            let pause = self.random.u64(0..THINK_US as u64);
            self.later(pause, Event::Ask);
        }
        self.later(0, Event::AskOne);
        while let Some(Reverse((at, number))) = self.events.pop() {
            self.now = at;
            let event = self.due.remove(&number).unwrap();
            let asks = matches!(event, Event::Ask | Event::AskOne);
            if !asks || at < SECONDS * 1_000_000 {
                self.happen(event);
            }
        }
        self.seen()
    }

    fn happen(&mut self, event: Event) {
        let now = timestamp(self.now);
        match event {
            Event::Ask => self.ask(),
            Event::AskOne => self.ask_one(),
            Event::Arrive(request, errand) => {
                let readings = self.counters.decide(&errand.group, errand.commit, now);
                let charged = errand.commit == Commit::Each && readings[0].passed;
                if charged && errand.group.claims[0].key == self.keys[1] {
                    self.log.push((self.now, Logged::Charged(request)));
                }
                let at = self.now;
                self.travel(Event::Answer(request, errand, readings, at));
            }
            Event::Answer(request, errand, readings, at) => {
                self.answer(request, &errand, &readings, at);
            }
            Event::GiveBack(receipts) => self.counters.amend(&receipts, now),
        }
    }

    fn ask(&mut self) {
        let [full, free] = [0, 1].map(|i| {
            let (key, limit) = (self.keys[i].clone(), self.limits[i]);
            vec![Claim { key, limit, hits: Hits::Take(1), lease: None }]
        });
        let split = Split::new(request(vec![full, free])).unwrap();
        let now = self.instant();
        let suspects = &self.suspects;
        let suspect = |claim: &Claim| {
            suspects.get(&claim.key).copied().filter(|fits_at| now < *fits_at + SECOND)
        };
        let errands = if self.careful {
            split.first(suspect, self.shy.is_shy(now))
        } else {
            split.first(|_| None, false)
        };
        let (open, receipts) = (errands.len(), Vec::new());
        self.requests.push(Request { split, open, receipts, admitted: false });
        for errand in errands {
            self.travel(Event::Arrive(self.requests.len() - 1, errand));
        }
    }

    fn ask_one(&mut self) {
        self.others += 1;
        let claim = Claim {
            key: self.keys[1].clone(),
            limit: self.limits[1],
            hits: Hits::Take(1),
            lease: None,
        };
        let group = request(vec![vec![claim]]);
        let split = Split::new(group.clone()).unwrap();
        let passed = self.counters.decide(&group, Commit::Together, timestamp(self.now))[0].passed;
        let number = self.requests.len();
        self.requests.push(Request { split, open: 0, receipts: Vec::new(), admitted: passed });
        let logged = if passed { Logged::Charged(number) } else { Logged::Refused };
        self.log.push((self.now, logged));
        let pause = self.pause(1e6 / OTHERS);
        self.later(pause, Event::AskOne);
    }

    fn answer(&mut self, number: usize, errand: &Errand, readings: &[Reading], at: u64) {
        let now = self.instant();
        for (claim, reading) in errand.group.claims.iter().zip(readings) {
            if !reading.passed {
                self.suspects.insert(claim.key.clone(), now + reading.retry_after.unwrap());
            }
        }
        let request = &mut self.requests[number];
        request.split.note(errand, Some(readings));
        request.receipts.extend(Split::receipts(errand, readings, timestamp(at)));
        request.open -= 1;
        if request.open > 0 {
            return;
        }
        let receipts = match request.split.next(true) {
            Next::Ask(errands) => {
                request.open = errands.len();
                for errand in errands {
                    self.travel(Event::Arrive(number, errand));
                }
                return;
            }
            Next::Admit => {
                request.admitted = true;
                Vec::new()
            }
            Next::Deny => std::mem::take(&mut request.receipts),
        };
        self.shy.note(!receipts.is_empty(), now);
        if !receipts.is_empty() {
            self.travel(Event::GiveBack(receipts));
        }
        let pause = self.pause(THINK_US);
        self.later(pause, Event::Ask);
    }

    /// Replays what was admitted, and sees which refusals it explains.
    fn seen(self) -> Seen {
        let limit = self.limits[1];
        let (mut twin, mut needless, mut admitted) = (Counter::Empty, 0, Vec::new());
        for (at, logged) in &self.log {
            match logged {
                Logged::Charged(number) if self.requests[*number].admitted => {
                    twin.step(&limit, Hits::Take(1), timestamp(*at));
                    admitted.push(*at);
                }
                Logged::Charged(_) => {}
                Logged::Refused => {
                    let fits = twin.clone().step(&limit, Hits::Take(1), timestamp(*at)).passed;
                    needless += usize::from(fits);
                }
            }
        }
        let needless = needless as f64 / self.others as f64;
        Seen { needless, excess: excess(&limit, &admitted), admitted: admitted.len() }
    }
}

/// The most by which any interval exceeds the promise of `limit`.
fn excess(limit: &Limit, admitted: &[u64]) -> i128 {
    let (period, requests) = (i128::from(limit.period_micros()), i128::from(limit.requests()));
    if let Algorithm::TokenBucket { burst } = limit.algorithm() {
        let (mut least, mut worst) = (i128::MAX, i128::MIN);
        for (i, at) in admitted.iter().enumerate() {
            let level = |count: usize| count as i128 * period - requests * i128::from(*at);
            least = least.min(level(i));
            worst = worst.max(level(i + 1) - least - i128::from(burst) * period);
        }
        return worst;
    }
    let in_window = |i: usize| {
        admitted[i..].iter().take_while(|at| **at < admitted[i] + limit.period_micros()).count()
    };
    (0..admitted.len()).map(|i| in_window(i) as i128 - requests).max().unwrap_or(0) * period
}

fn bucket(requests: u32, burst: u32) -> Limit {
    limit(requests, Algorithm::TokenBucket { burst }, Charge::Admitted)
}

fn window(requests: u32) -> Limit {
    limit(requests, Algorithm::SlidingWindow { slots: 10 }, Charge::Admitted)
}

/// Charging at once and giving back refuses most of the others beside a bucket that is used up:
/// what refills meanwhile cannot be given back.
#[test]
fn limit_that_is_used_up_does_not_refuse_others() {
    let careful = |limits| Crowd::new(true, &limits, 1).run();
    let buckets = [bucket(10, 10), bucket(1_000, 100)];
    let hasty = Crowd::new(false, &buckets, 1).run();
    assert!(hasty.needless > 0.3, "the model sees no waste: {hasty:?}");
    for limits in [buckets, [window(10), window(1_000)]] {
        let seen = careful(limits);
        assert!(seen.needless < 0.005, "{seen:?}");
        assert!(seen.admitted > 1_000 && seen.excess <= 0, "{seen:?}");
    }
}

#[test]
fn nothing_is_exceeded_where_everybody_pushes() {
    for limits in [[bucket(300, 30), bucket(500, 20)], [window(200), window(300)]] {
        for careful in [false, true] {
            for seed in 0..2 {
                let seen = Crowd::new(careful, &limits, seed).run();
                assert!(seen.admitted > 300 && seen.excess <= 0, "{careful}: {seen:?}");
            }
        }
    }
}
