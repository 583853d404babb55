//! The promise while replicas decide by shares of their own: never more than twice the limit, and
//! one share more for each replica that starts while the store is away.
//!
//! One exact store and N processes. Each of them loses the store at random times, alone or
//! together, returns, tells what it admitted, and restarts; the store loses its data. The oracle
//! knows limits, times and admissions.

use std::collections::BTreeMap;
use std::time::Duration;

use tollgate::domain::share::turn;
use tollgate::domain::{Algorithm, Change, Charge, Counter, Hits, Limit, Timestamp, Untold};

use crate::random::Random;

const SECOND: u64 = 1_000_000;
/// From here on the store is lost now and then; before, all processes have been counted.
const START: u64 = 1_700_000_005 * SECOND;
/// The number of beats for which the store, and a process, believe a beat.
const BEAT_TTL: u64 = 3 * SECOND;
const REMEMBERED_BEATS: usize = 60;

/// The events of a trace.
#[derive(Clone, Copy, Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "independent switches of a test")]
struct Plan {
    losses: u64,
    /// All processes lose the store at once, else some.
    for_all: bool,
    data_is_lost: bool,
    processes_restart: bool,
    lost_tellings_percent: u64,
    /// Tellings arrive at once, else before the next request of its process.
    told_first: bool,
    fault: Fault,
}

/// The fault of a wrong implementation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Fault {
    #[default]
    None,
    FreshSharesAtEachLoss,
    LastCountOfReplicas,
    /// The oracle, not the code, is wrong: it forgets that processes have restarted.
    RestartsUncounted,
}

/// A process: the replica, and how often it has restarted.
type Process = (usize, u32);

enum Event {
    Beat(usize),
    Request(usize, u64),
    Return(usize),
    Restart(usize),
    DataLoss,
}

struct Replica {
    process: Process,
    /// Replicas counted and own rank, by each beat.
    beats: Vec<(u32, u32)>,
    away: bool,
    local: Option<Local>,
}

/// The share of a process and its counter, which outlives a loss.
struct Local {
    share: Limit,
    counter: Counter,
    untold: Untold,
}

/// The span in which a process has decided without the store.
#[derive(Debug)]
struct Span {
    /// The largest of its shares.
    capacity: u64,
    hits_per_us: f64,
    first: u64,
    last: u64,
    /// Its decisions, for windows.
    at: Vec<u64>,
}

struct World {
    plan: Plan,
    limit: Limit,
    slot: u16,
    store: Counter,
    replicas: Vec<Replica>,
    present: BTreeMap<Process, u64>,
    away: Vec<Vec<(u64, u64)>>,
    admitted: Vec<(u64, u64)>,
    data_losses: Vec<u64>,
    spans: BTreeMap<Process, Span>,
}

impl World {
    fn new(random: &mut Random, plan: Plan, algorithm: usize) -> Self {
        let count = 1 + random.up_to(5) as usize;
        let period = random.pick(&[SECOND / 5, SECOND]);
        let few = 1 + random.up_to(4) as u32;
        let many = 4 + random.up_to(36) as u32;
        let requests = random.pick(&[few, many]);
        let algorithm = [
            Algorithm::TokenBucket { burst: 1 + random.up_to(39) as u32 },
            Algorithm::SlidingWindow { slots: 10 },
            Algorithm::FixedWindow,
        ][algorithm];
        let period = Duration::from_micros(period);
        let limit = Limit::new(requests, period, algorithm, Charge::Admitted).unwrap();
        let replica = |i| Replica { process: (i, 0), beats: Vec::new(), away: false, local: None };
        Self {
            plan,
            limit,
            slot: random.up_to(99) as u16,
            store: Counter::Empty,
            replicas: (0..count).map(replica).collect(),
            present: BTreeMap::new(),
            away: vec![Vec::new(); count],
            admitted: Vec::new(),
            data_losses: Vec::new(),
            spans: BTreeMap::new(),
        }
    }

    fn is_away(&self, replica: usize, now: u64) -> bool {
        self.away[replica].iter().any(|(from, until)| (*from..*until).contains(&now))
    }

    /// Faults, beats and requests in the order of their times.
    fn events(&mut self, random: &mut Random) -> Vec<(u64, Event)> {
        let (count, period) = (self.replicas.len(), self.limit.period_micros());
        let end = START + random.pick(&[4, 10, 25]) * period;
        let mut events = Vec::new();
        for _ in 0..=random.up_to(self.plan.losses - 1) {
            let from = START + random.up_to(end - START);
            let until = from + random.pick(&[period / 20, period / 2, 2 * period, 6 * period]);
            for replica in 0..count {
                if self.plan.for_all || random.chance(60) {
                    self.away[replica].push((from, until));
                    if self.plan.told_first {
                        events.push((until, Event::Return(replica)));
                    }
                }
            }
            if self.plan.data_is_lost && random.chance(50) {
                events.push((until - 1, Event::DataLoss));
            }
            if self.plan.processes_restart && random.chance(70) {
                let at = from + random.up_to(until - from);
                events.push((at, Event::Restart(random.up_to(count as u64 - 1) as usize)));
            }
        }
        for replica in 0..count {
            let mut at = START - 5 * SECOND + random.up_to(SECOND);
            while at < end {
                events.push((at, Event::Beat(replica)));
                at += SECOND * (90 + random.up_to(20)) / 100;
            }
        }
        let step = period / u64::from(self.limit.requests());
        let most = (self.limit.capacity() / count as u64).max(1);
        let mut at = START - random.up_to(2) * period;
        for _ in 0..200 {
            let wait = random.pick(&[0, 0, step / 4, step, step, period / 3]);
            at += random.up_to(wait);
            let many = 1 + random.up_to(most - 1);
            let hits = random.pick(&[1, 1, 1, 2, many]);
            let replica = random.up_to(count as u64 - 1) as usize;
            events.push((at, Event::Request(replica, hits)));
        }
        events.sort_by_key(|(at, _)| *at);
        events
    }

    fn run(&mut self, random: &mut Random) {
        for (now, event) in self.events(random) {
            match event {
                Event::Beat(replica) if !self.is_away(replica, now) => self.beat(replica, now),
                Event::Request(replica, hits) => self.request(replica, hits, now, random),
                Event::Return(replica) if !self.is_away(replica, now) => {
                    self.tell(replica, now, random);
                }
                Event::Beat(_) | Event::Return(_) => {}
                Event::Restart(i) => {
                    let (_, restarts) = self.replicas[i].process;
                    let process = (i, restarts + 1);
                    self.replicas[i] =
                        Replica { process, beats: Vec::new(), away: false, local: None };
                }
                Event::DataLoss => {
                    self.store = Counter::Empty;
                    self.present.clear();
                    self.data_losses.push(now);
                }
            }
        }
    }

    fn beat(&mut self, replica: usize, now: u64) {
        self.present.retain(|_, expiry| *expiry > now);
        let replica = &mut self.replicas[replica];
        self.present.insert(replica.process, now + BEAT_TTL);
        let rank = self.present.keys().position(|process| *process == replica.process).unwrap();
        replica.beats.push((self.present.len() as u32, rank as u32));
    }

    /// The count and the rank that a replica goes by.
    fn counted(&self, replica: usize) -> (u32, u32) {
        let beats = &self.replicas[replica].beats;
        let remembered = match self.plan.fault {
            Fault::LastCountOfReplicas => 1,
            _ => REMEMBERED_BEATS,
        };
        let beats = &beats[beats.len().saturating_sub(remembered)..];
        let largest = beats.iter().copied().enumerate().max_by_key(|(i, (count, _))| (*count, *i));
        // A process that never saw the store has the count from its settings.
        largest.map_or((self.replicas.len() as u32, replica as u32), |(_, beat)| beat)
    }

    fn request(&mut self, replica: usize, hits: u64, now: u64, random: &mut Random) {
        let at = Timestamp::from_micros(now);
        if !self.is_away(replica, now) {
            self.tell(replica, now, random);
            if self.store.step(&self.limit, Hits::Take(hits), at).passed {
                self.admitted.push((now, hits));
            }
            return;
        }
        if !self.replicas[replica].away {
            self.lose(replica, now);
        }
        let process = self.replicas[replica].process;
        let span = self.spans.get_mut(&process).unwrap();
        span.last = now;
        span.at.push(now);
        let local = self.replicas[replica].local.as_mut().unwrap();
        if local.counter.step(&local.share, Hits::Take(hits), at).passed {
            local.untold.charge(hits, at);
            self.admitted.push((now, hits));
        }
    }

    /// The share of a loss is fixed by the first request of it.
    fn lose(&mut self, replica: usize, now: u64) {
        let at = Timestamp::from_micros(now);
        let (count, rank) = self.counted(replica);
        let share = self.limit.share(count, turn(rank, self.slot, count)).unwrap();
        let limit = self.limit;
        let Replica { process, away, local, .. } = &mut self.replicas[replica];
        *away = true;
        let local = local.get_or_insert_with(|| Local {
            share,
            counter: Counter::Empty,
            untold: Untold::new(limit, count, &Counter::Empty, at),
        });
        local.share = share;
        local.untold.resume(limit, count, at);
        if self.plan.fault == Fault::FreshSharesAtEachLoss {
            local.counter = Counter::Empty;
        }
        let hits_per_us = f64::from(share.requests()) / share.period_micros() as f64;
        let span = self.spans.entry(*process).or_insert(Span {
            capacity: 0,
            hits_per_us: 0.0,
            first: now,
            last: now,
            at: Vec::new(),
        });
        span.capacity = span.capacity.max(share.capacity());
        span.hits_per_us = span.hits_per_us.max(hits_per_us);
    }

    /// A process that has the store again tells it what its share admitted.
    fn tell(&mut self, replica: usize, now: u64, random: &mut Random) {
        let at = Timestamp::from_micros(now);
        let Replica { away, local: Some(local), .. } = &mut self.replicas[replica] else { return };
        if !std::mem::take(away) {
            return;
        }
        let reset_after = local.counter.step(&local.share, Hits::Peek(1), at).reset_after;
        let told = local.untold.take(reset_after, at);
        if let Some(told) = told.filter(|_| !random.chance(self.plan.lost_tellings_percent)) {
            self.store.amend(&self.limit, &Change::Tell(told), at);
        }
    }

    /// The spans that count as processes of their own.
    fn counted_spans(&self) -> impl Iterator<Item = &Span> {
        let all = self.plan.fault != Fault::RestartsUncounted;
        self.spans.iter().filter(move |((_, restarts), _)| all || *restarts == 0).map(|(_, s)| s)
    }

    /// The worst excess over the promise of the store and of the processes that decided without it,
    /// in hits.
    fn excess(&self) -> f64 {
        match self.limit.algorithm() {
            Algorithm::TokenBucket { .. } => self.bucket_excess(),
            Algorithm::SlidingWindow { .. } => {
                let starts = self.admitted.iter().map(|(at, _)| *at).collect();
                self.window_excess(starts)
            }
            Algorithm::FixedWindow | Algorithm::Concurrency => {
                let period = self.limit.period_micros();
                self.window_excess(self.admitted.iter().map(|(at, _)| at - at % period).collect())
            }
        }
    }

    fn bucket_excess(&self) -> f64 {
        let capacity = self.limit.capacity() as f64;
        let rate = f64::from(self.limit.requests()) / self.limit.period_micros() as f64;
        let mut worst = f64::MIN;
        for first in 0..self.admitted.len() {
            let (from, mut sum) = (self.admitted[first].0, 0.0);
            for &(until, hits) in &self.admitted[first..] {
                sum += hits as f64;
                let over = sum - capacity - rate * (until - from) as f64;
                if over <= 1e-6 {
                    worst = worst.max(over);
                    continue;
                }
                let within = |span: &&Span| span.first <= until && span.last >= from;
                let shares: f64 = self
                    .counted_spans()
                    .filter(within)
                    .map(|span| {
                        let overlap = until.min(span.last) - from.max(span.first);
                        span.capacity as f64 + span.hits_per_us * overlap as f64
                    })
                    .sum();
                worst = worst.max(over - shares - capacity * self.lost_within(from, until));
            }
        }
        worst
    }

    fn window_excess(&self, starts: Vec<u64>) -> f64 {
        let capacity = self.limit.capacity() as f64;
        let mut worst = f64::MIN;
        for start in starts {
            let window = start..start + self.limit.period_micros();
            let hits: u64 =
                self.admitted.iter().filter(|(at, _)| window.contains(at)).map(|(_, h)| h).sum();
            let within = |span: &&Span| span.at.iter().any(|at| window.contains(at));
            let shares: u64 = self.counted_spans().filter(within).map(|span| span.capacity).sum();
            let lost = capacity * self.lost_within(window.start, window.end);
            worst = worst.max(hits as f64 - capacity - shares as f64 - lost);
        }
        worst
    }

    fn lost_within(&self, from: u64, until: u64) -> f64 {
        self.data_losses.iter().filter(|at| (from..=until).contains(at)).count() as f64
    }

    /// By how many hits the shares of the processes together are larger than the limit, or than a
    /// hit each.
    fn shares_beyond(&self) -> i64 {
        let sum: u64 = self.counted_spans().map(|span| span.capacity).sum();
        let whole = self.limit.capacity().max(self.replicas.len() as u64);
        sum.cast_signed() - whole.cast_signed()
    }
}

/// The result of the worst of many traces.
#[derive(Debug)]
struct Worst {
    excess: f64,
    shares_beyond: i64,
    admitted_locally: usize,
}

fn worst(plan: Plan, algorithm: usize) -> Worst {
    let mut worst = Worst { excess: f64::MIN, shares_beyond: i64::MIN, admitted_locally: 0 };
    for seed in 0..400 {
        let mut random = Random::new(seed);
        let mut world = World::new(&mut random, plan, algorithm);
        world.run(&mut random);
        worst.excess = worst.excess.max(world.excess());
        worst.shares_beyond = worst.shares_beyond.max(world.shares_beyond());
        worst.admitted_locally += world.spans.values().map(|span| span.at.len()).sum::<usize>();
    }
    worst
}

const ONE_FOR_ALL: Plan = Plan {
    losses: 1,
    for_all: true,
    data_is_lost: false,
    processes_restart: false,
    lost_tellings_percent: 0,
    told_first: false,
    fault: Fault::None,
};
const SIX_FOR_ALL: Plan = Plan { losses: 6, ..ONE_FOR_ALL };

#[test]
fn shares_admit_at_most_twice_the_promise() {
    let plans = [
        ONE_FOR_ALL,
        Plan { told_first: true, ..ONE_FOR_ALL },
        Plan { for_all: false, ..ONE_FOR_ALL },
        SIX_FOR_ALL,
        Plan { for_all: false, ..SIX_FOR_ALL },
        Plan { lost_tellings_percent: 50, ..SIX_FOR_ALL },
        Plan { lost_tellings_percent: 100, ..SIX_FOR_ALL },
        Plan { data_is_lost: true, ..SIX_FOR_ALL },
        Plan { processes_restart: true, ..SIX_FOR_ALL },
    ];
    for algorithm in 0..3 {
        for plan in plans {
            let worst = worst(plan, algorithm);
            assert!(worst.excess <= 1e-6, "{algorithm} {plan:?}: {worst:?}");
            assert!(worst.admitted_locally > 1_000, "{algorithm} {plan:?}: {worst:?}");
            // A process that restarts is one more.
            if !plan.processes_restart {
                assert!(worst.shares_beyond <= 0, "{algorithm} {plan:?}: {worst:?}");
            }
        }
    }
}

#[test]
fn faults_break_the_bound() {
    for algorithm in 0..3 {
        let plan = |fault| Plan { fault, ..SIX_FOR_ALL };
        let fresh = worst(plan(Fault::FreshSharesAtEachLoss), algorithm);
        assert!(fresh.excess >= 1.0, "{algorithm}: {fresh:?}");
        let last = Plan { data_is_lost: true, ..plan(Fault::LastCountOfReplicas) };
        let last = worst(last, algorithm);
        assert!(last.shares_beyond >= 1, "{algorithm}: {last:?}");
        let restarts = Plan { processes_restart: true, ..plan(Fault::RestartsUncounted) };
        let restarts = worst(restarts, algorithm);
        assert!(restarts.excess >= 1.0, "{algorithm}: {restarts:?}");
    }
}
