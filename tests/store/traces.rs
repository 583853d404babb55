//! Random traces: frames of groups over a few counters, with time that moves both ways and limits that change.
//!
//! All times and states stay below 2^53, to which the doubles of the script are exact.

use std::time::Duration;

use tollgate::domain::{
    Algorithm, Charge, Claim, Commit, Group, Hits, Key, Lease, LeaseAsk, Limit, Part, Timestamp,
    Windows,
};

use super::random::Random;

/// Groups that one call of the script decides.
#[derive(Debug)]
pub struct Step {
    pub now: Timestamp,
    pub groups: Vec<(Group, Commit)>,
}

/// What the trace of one seed does.
#[derive(Debug)]
pub struct Trace {
    pub keys: Vec<Key>,
    pub steps: Vec<Step>,
}

/// Where in time a trace plays.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Era {
    /// Today; debts may be without bound.
    Present,
    /// In the first periods after 1970.
    Beginning,
    /// As near to 2^53 as the state of a short period stays exact.
    End,
}

impl Era {
    pub fn random(random: &mut Random) -> Self {
        random.pick(&[Self::Present, Self::Present, Self::Beginning, Self::End])
    }

    pub fn start(self, random: &mut Random) -> u64 {
        match self {
            Self::Present => 1_795_000_000_000_000 + random.up_to(1_000_000_000),
            Self::Beginning => random.up_to(1_000),
            Self::End => (1 << 53) - (1 << 40),
        }
    }
}

/// A counter: what its key fixes, and the limit it is held to at present.
pub struct Subject {
    pub key: Key,
    algorithm: Kind,
    slots: u32,
    pub period: u64,
    /// Of its leases, now and then another.
    ttl: u64,
    limit: Limit,
    /// Its fixed windows follow a calendar, by the clock of a replica that is ahead by half of this, and behind by the
    /// other half.
    calendar: Option<(u64, u64)>,
    /// Others that are held to the same counter in turn.
    others: Vec<Limit>,
}

#[derive(Clone, Copy)]
enum Kind {
    TokenBucket,
    SlidingWindow,
    FixedWindow,
}

const PERIODS: [u64; 9] = [
    1,
    7,
    1_000,
    1_000_000,
    60_000_000,
    3_600_000_000,
    86_400_000_000,
    315_360_000_000_000,
    1 << 51,
];
const TTLS: [u64; 5] = [1, 7, 1_000, 50_000, 1_000_000];
const RATES: [u32; 12] = [1, 2, 3, 5, 7, 10, 11, 100, 999, 700_000, u32::MAX - 1, u32::MAX];

impl Trace {
    pub fn of_seed(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let era = Era::random(&mut random);
        let count = 1 + random.up_to(3);
        let mut subjects: Vec<_> =
            (0..count).map(|i| subject(&mut random, era, format!("{seed}:{i}"))).collect();
        let mut now = era.start(&mut random);
        let steps = (0..4 + random.up_to(8)).map(|_| {
            now = moved(&mut random, now, &subjects, era);
            for subject in &mut subjects {
                if era != Era::End && random.chance(8) {
                    subject.limit = limit(&mut random, era, subject);
                    subject.ttl = random.pick(&TTLS);
                }
            }
            let groups =
                (0..=random.up_to(2)).map(|_| group(&mut random, now, &subjects)).collect();
            Step { now: Timestamp::from_micros(now), groups }
        });
        let steps = steps.collect();
        Self { keys: subjects.into_iter().map(|subject| subject.key).collect(), steps }
    }
}

impl Trace {
    /// Frames of one claim, which the script decides on its short way where it can.
    pub fn of_single_claims(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let era = Era::random(&mut random);
        let mut subject = subject(&mut random, era, format!("single:{seed}"));
        if random.chance(50) {
            subject.others.clear();
        }
        if random.chance(20) && era != Era::End {
            subject.others.extend(akin(&mut random, &subject.limit));
        }
        let subjects = [subject];
        let mut now = era.start(&mut random);
        // Steps of about a run's width fill a window with runs.
        let dense = random.chance(30) && era != Era::End;
        let steps = (0..24).map(|_| {
            let [subject] = &subjects;
            let width = random.up_to(subject.period / u64::from(subject.slots));
            now = match random.up_to(9) {
                0..=2 => now,
                3..=6 if dense && now < 1 << 51 => now + width,
                7 if dense => now.saturating_sub(width),
                _ => moved(&mut random, now, &subjects, era),
            };
            let limit = subject.turn(&mut random, now);
            let lease =
                if random.chance(10) { lease(&mut random, now, subject, &limit) } else { None };
            let any = hits(&mut random, &limit);
            let few = Hits::Take(if dense { 1 } else { 1 + random.up_to(2) });
            let claim =
                Claim { key: subject.key.clone(), limit, hits: random.pick(&[any, few]), lease };
            let part = Part { quota: random.chance(10), shadow: random.chance(10), claims: 0..1 };
            let commit = if random.chance(10) { Commit::Each } else { Commit::Together };
            let group = Group { parts: vec![part], claims: vec![claim] };
            Step { now: Timestamp::from_micros(now), groups: vec![(group, commit)] }
        });
        let steps = steps.collect();
        let [subject] = subjects;
        Self { keys: vec![subject.key], steps }
    }
}

pub fn subject(random: &mut Random, era: Era, key: String) -> Subject {
    let periods = if era == Era::End { &PERIODS[..5] } else { &PERIODS[..] };
    let period = random.pick(periods);
    let any = Limit::new(1, Duration::from_secs(1), Algorithm::FixedWindow, Charge::Admitted);
    let mut subject = Subject {
        key: Key::new(key.into_bytes()),
        algorithm: random.pick(&[Kind::TokenBucket, Kind::SlidingWindow, Kind::FixedWindow]),
        slots: random.pick(&[1, 2, 3, 10, 40]),
        period,
        ttl: random.pick(&TTLS),
        limit: any.unwrap(),
        calendar: None,
        others: Vec::new(),
    };
    if let Kind::FixedWindow = subject.algorithm
        && random.chance(50)
    {
        let half = period / 2;
        let ahead = random.pick(&[0, 0, half]);
        subject.calendar =
            Some((random.up_to(ahead), if ahead == 0 { random.up_to(half) } else { 0 }));
    }
    subject.limit = limit(random, era, &subject);
    // At another rate a state may lie far ahead, at the end beyond what a double counts.
    if era != Era::End && random.chance(40) {
        subject.others = (0..=random.up_to(1)).map(|_| limit(random, era, &subject)).collect();
    }
    subject
}

impl Subject {
    /// The limit whose turn it is, at this time.
    pub fn turn(&self, random: &mut Random, now: u64) -> Limit {
        let turn = random.up_to(self.others.len() as u64) as usize;
        let limit = self.others.get(turn).copied().unwrap_or(self.limit);
        match self.calendar {
            Some((ahead, behind)) => {
                limit.on(windows(self.period, (now + ahead).saturating_sub(behind)))
            }
            None => limit,
        }
    }
}

/// Windows of unequal lengths around `now`, two thirds to four thirds of a period each.
fn windows(period: u64, now: u64) -> Windows {
    let edge = |i: u64| i * period + i % 1_000_003 * 7_919 % (period / 3).max(1);
    let near = now / period;
    let current = if edge(near) > now { near.saturating_sub(1) } else { near };
    let edges = [current.saturating_sub(1), current, current + 1, current + 2];
    Windows::new("unequal", edges.map(|i| Timestamp::from_micros(edge(i))))
}

/// Other numbers for the same counter; what its key fixes stays.
fn limit(random: &mut Random, era: Era, subject: &Subject) -> Limit {
    loop {
        let few = 1 + random.up_to(20) as u32;
        let (many, most) = (random.pick(&RATES), random.pick(&RATES));
        let requests = if random.chance(3) { 0 } else { random.pick(&[few, few, many]) };
        let burst = random.pick(&[few, requests, requests, most]);
        let burst = if requests == 0 { 0 } else { burst };
        let debt = random.up_to(30);
        let charge = match random.up_to(9) {
            0 if era != Era::End => Charge::Always { max_debt: None },
            0..=2 => Charge::Always { max_debt: Some(debt) },
            3 if era != Era::End => Charge::Settled { max_debt: None },
            3..=4 => Charge::Settled { max_debt: Some(debt) },
            5 => Charge::Held { max_debt: Some(debt) },
            _ => Charge::Admitted,
        };
        let algorithm = match subject.algorithm {
            Kind::TokenBucket => Algorithm::TokenBucket { burst },
            Kind::SlidingWindow => Algorithm::SlidingWindow { slots: subject.slots },
            Kind::FixedWindow => Algorithm::FixedWindow,
        };
        let limit = Limit::new(requests, Duration::from_micros(subject.period), algorithm, charge);
        let limit = limit.map(|limit| {
            let max_wait = random.pick(&[0, 0, 1, 1_500, 10_000_000]);
            limit.waiting(Duration::from_micros(max_wait))
        });
        if let Ok(limit) = limit
            && (era != Era::End || limit.ceiling().micros < 1 << 38)
        {
            return limit;
        }
    }
}

/// A bucket of the same rate and another reach, or a sliding window whose runs are narrower or wider.
fn akin(random: &mut Random, limit: &Limit) -> Option<Limit> {
    let (requests, algorithm) = match limit.algorithm() {
        Algorithm::TokenBucket { .. } => {
            let burst = 1 + random.up_to(19) as u32;
            (limit.requests(), Algorithm::TokenBucket { burst })
        }
        Algorithm::SlidingWindow { slots } => (slots, limit.algorithm()),
        Algorithm::FixedWindow | Algorithm::Concurrency => return None,
    };
    Limit::new(requests, limit.period(), algorithm, Charge::Admitted).ok()
}

/// The next time: the same, a little later, up to three periods later, or back.
pub fn moved(random: &mut Random, now: u64, subjects: &[Subject], era: Era) -> u64 {
    // Leaves room below 2^53 for the furthest state: 2^52 us ahead, or what the last era allows.
    let latest = if era == Era::End { (1 << 53) - (1 << 39) } else { (1 << 52) - 1 };
    let subject = &subjects[random.up_to(subjects.len() as u64 - 1) as usize];
    let period = subject.period;
    let later = match random.up_to(10) {
        0..=1 => now,
        2 => now + random.up_to(3),
        3..=4 => now + random.up_to(period / 5),
        // To the end of a lease, or a little after.
        5..=6 => now - now % subject.ttl + subject.ttl * (1 + random.up_to(2)) + random.up_to(2),
        7 => now + period,
        8..=9 => now + random.up_to(3 * period),
        _ => now.saturating_sub(random.up_to(2 * period)),
    };
    later.min(latest)
}

pub fn group(random: &mut Random, now: u64, subjects: &[Subject]) -> (Group, Commit) {
    let mut group = Group::default();
    for _ in 0..random.pick(&[1, 1, 1, 2, 2, 3, 4, 0]) {
        let first = group.claims.len();
        for _ in 0..random.pick(&[1, 1, 1, 2, 2, 3, 0]) {
            let subject = &subjects[random.up_to(subjects.len() as u64 - 1) as usize];
            let limit = subject.turn(random, now);
            let hits = hits(random, &limit);
            let lease = lease(random, now, subject, &limit);
            let key = subject.key.clone();
            group.claims.push(Claim { key, limit, hits, lease });
        }
        group.parts.push(Part {
            quota: random.chance(25),
            shadow: random.chance(15),
            claims: first..group.claims.len(),
        });
    }
    let commit = match random.up_to(9) {
        0 => Commit::Never,
        1..=2 => Commit::Each,
        _ => Commit::Together,
    };
    (group, commit)
}

/// A lease of a bucket, now and then; the finished one may be any that could have been granted.
fn lease(random: &mut Random, now: u64, subject: &Subject, limit: &Limit) -> Option<Box<LeaseAsk>> {
    let leases = matches!(subject.algorithm, Kind::TokenBucket) && !limit.always_charges();
    if !leases || random.chance(50) {
        return None;
    }
    let tokens = random.up_to(limit.capacity().min(12));
    let most = tokens + random.up_to(limit.capacity());
    let ttl = subject.ttl;
    let until = (now - now % ttl + ttl * random.up_to(2)).max(ttl);
    let (ttl, until) = (Duration::from_micros(ttl), Timestamp::from_micros(until));
    let finished = Lease { tokens: random.up_to(12), until };
    let finished = random.chance(50).then_some(finished);
    Some(Box::new(LeaseAsk { tokens, most, ttl, finished }))
}

pub fn hits(random: &mut Random, limit: &Limit) -> Hits {
    let capacity = limit.capacity();
    let few = 1 + random.up_to(3);
    let most = 1 + random.up_to(capacity);
    let hits = match random.up_to(19) {
        0..=8 => few,
        9..=14 => most,
        15 => capacity.max(1),
        16 => capacity + 1,
        17 => 1 + random.up_to(1 << 33),
        18 => (1 << 52) + random.up_to(2) - 1,
        _ => u64::MAX,
    };
    let settles = limit.settles() || random.chance(5);
    match random.up_to(9) {
        0 if settles && random.chance(50) => Hits::Peek(0),
        0 => Hits::Peek(1),
        1..=2 => Hits::Refund(hits),
        3..=7 if settles => Hits::Book(hits),
        _ => Hits::Take(hits),
    }
}
