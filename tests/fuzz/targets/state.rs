//! The state of a counter as Redis holds it: the script and the domain core agree whether it can
//! be read, and what is decided from it.
//!
//! Input: ten bytes that choose limit, claim, amendment and time, and the bytes of the state.
//!
//! The decoder in Rust takes only what the script could have written. The script also reads states
//! in which a check would cost every decision: fractions, totals that are not those of the runs,
//! runs out of order, windows that begin anywhere. Of these the promise is less: no call fails, and
//! both ways of the script give the same reply, which is no error.

use std::time::Duration;

use smallvec::SmallVec;
use tollgate::domain::{
    Algorithm, Amendment, Change, Charge, Claim, Commit, Counter, Hits, Key, Lease, LeaseAsk,
    Limit, Reading, SATURATION, Timestamp, Told,
};
use tollgate::store::redis::script::layout::{
    BUCKET_VERSION, OLD_BUCKET_VERSION, OldBucket, Record as _, StateHead, TOKEN_BUCKET,
};
use tollgate::store::redis::script::{AmendFrame, Reply, readings};

use super::script::{Outcome, group, play};
use super::stored;

/// The bytes before the state.
const HEAD_BYTES: usize = 10;

/// A sliding window of a thousand runs has 16 kB. Longer ones find nothing more.
const MAX_STATE_BYTES: usize = 1_024;

const NOW: u64 = 1_795_000_000_000_000;

const REQUESTS: [u32; 10] = [1, 2, 3, 7, 10, 100, 999, 700_000, u32::MAX - 1, u32::MAX];
const PERIODS: [u64; 8] =
    [1, 7, 1_000, 1_000_000, 60_000_000, 3_600_000_000, 315_360_000_000_000, 1 << 51];
const SLOTS: [u32; 5] = [1, 2, 3, 10, 1_000];
const TTLS: [u64; 4] = [1, 1_000, 20_000, 1_000_000];

/// The script, on both of its ways, and the core decide and amend the same.
pub fn run(data: &[u8]) {
    let Some((head, raw)) = data.split_first_chunk() else { return };
    let Some(ask) = Ask::new(*head) else { return };
    let raw = Some(raw.get(..MAX_STATE_BYTES).unwrap_or(raw)).filter(|raw| !raw.is_empty());
    let decoded = decode(raw);
    let Some(outcomes) = play(raw, &ask.claim, &ask.amendment, ask.now) else {
        // Without Redis, the core alone.
        let counter = decoded.unwrap_or_default();
        ask.decide(counter.clone());
        ask.amend(counter);
        return;
    };
    let context = || format!("{ask:?}\n{decoded:?}\n{outcomes:?}");
    assert_eq!(outcomes.short.integers, outcomes.long.integers, "{}", context());
    let of_core = ask.counted(decoded.as_ref(), &outcomes.long);
    let found = ask.readings(&outcomes.long).unwrap_or_else(|| panic!("{}", context()));
    if let Some(counter) = of_core {
        let (expected, after) = ask.decide(counter);
        assert_eq!(outcomes.short.state, outcomes.long.state, "{}", context());
        assert_eq!(found, expected, "{}", context());
        assert!(ask.is_left(raw, &outcomes.long, &after), "{after:?} after {}", context());
    }
    let of_core = ask.counted(decoded.as_ref(), &outcomes.amended);
    let found = ask.amounts(&outcomes.amended).unwrap_or_else(|| panic!("{}", context()));
    if let Some(counter) = of_core {
        let (expected, after) = ask.amend(counter);
        assert_eq!(found, [expected], "{}", context());
        assert!(ask.is_left(raw, &outcomes.amended, &after), "{after:?} after {}", context());
    }
}

/// A claim and an amendment on one counter, and the time of both.
#[derive(Debug)]
struct Ask {
    claim: Claim,
    amendment: Amendment,
    now: Timestamp,
}

impl Ask {
    /// None: there is no such limit.
    fn new(
        [kind, requests, period, extra, hits, lease, offset @ ..]: [u8; HEAD_BYTES],
    ) -> Option<Self> {
        let period = pick(&PERIODS, period);
        let algorithm = match kind % 3 {
            0 => Algorithm::TokenBucket { burst: pick(&REQUESTS, extra) },
            1 => Algorithm::SlidingWindow { slots: pick(&SLOTS, extra) },
            _ => Algorithm::FixedWindow,
        };
        let charge = match kind / 3 % 8 {
            0 => Charge::Always { max_debt: None },
            1 => Charge::Always { max_debt: Some(5) },
            2 => Charge::Settled { max_debt: None },
            3 => Charge::Settled { max_debt: Some(5) },
            _ => Charge::Admitted,
        };
        let period = Duration::from_micros(period);
        let limit = Limit::new(pick(&REQUESTS, requests), period, algorithm, charge).ok()?;
        let offset = i32::from_le_bytes(offset).into();
        // A zero is the beginning of time.
        let now = if kind >= 128 { 0 } else { NOW };
        let now = now.checked_add_signed(offset)?;
        let hits = hits_of(&limit, hits);
        let change = change_of(&limit, lease, hits.needed(), now);
        let key = Key::new(*b"key");
        let leases = kind % 3 == 0 && charge == Charge::Admitted;
        let lease = leases.then(|| lease_of(&limit, lease, now)).flatten().map(Box::new);
        Some(Self {
            claim: Claim { key: key.clone(), limit, hits, lease },
            amendment: Amendment { key, limit, change },
            now: Timestamp::from_micros(now),
        })
    }

    /// The state from which the core decides as the script does. None: the script reads a state
    /// that it could not have written.
    fn counted(&self, decoded: Result<&Counter, &String>, outcome: &Outcome) -> Option<Counter> {
        match (decoded, outcome.integers.first()) {
            (Ok(counter), Some(0)) => self.is_aligned(counter).then(|| self.own(counter.clone())),
            (Err(_), Some(1)) => Some(Counter::Empty),
            (Err(_), Some(0)) => None,
            _ => panic!("{decoded:?} and {outcome:?}: not agreed whether it can be read"),
        }
    }

    /// False for a window that begins where none of this limit does. The key names the period.
    fn is_aligned(&self, counter: &Counter) -> bool {
        let period = self.claim.limit.period_micros();
        !matches!(counter, Counter::FixedWindow(window) if window.start.floor(period) != window.start)
    }

    /// A state of another algorithm counts as empty.
    fn own(&self, counter: Counter) -> Counter {
        match (&counter, self.claim.limit.algorithm()) {
            (Counter::TokenBucket(_), Algorithm::TokenBucket { .. })
            | (Counter::SlidingWindow(_), Algorithm::SlidingWindow { .. })
            | (Counter::FixedWindow(_), Algorithm::FixedWindow) => counter,
            _ => Counter::Empty,
        }
    }

    fn decide(&self, counter: Counter) -> (Vec<Reading>, Counter) {
        let (group, mut counters) = (group(self.claim.clone()), [counter]);
        let readings = group.decide(Commit::Together, self.now, &[0], &mut counters);
        let [counter] = counters;
        (readings, counter)
    }

    fn amend(&self, mut counter: Counter) -> (u64, Counter) {
        let Amendment { limit, change, .. } = &self.amendment;
        (counter.amend(limit, change, self.now), counter)
    }

    fn readings(&self, outcome: &Outcome) -> Option<Vec<Reading>> {
        let mut reply = Reply::new(outcome.integers.clone()).ok()?;
        let integers = reply.next_group(outcome.integers.len());
        let found = readings(&group(self.claim.clone()), &integers, integers.decided_at);
        found.ok().map(SmallVec::into_vec)
    }

    fn amounts(&self, outcome: &Outcome) -> Option<Vec<u64>> {
        let mut frame = AmendFrame::default();
        frame.push(&self.amendment);
        frame.amounts(outcome.integers.clone()).ok()
    }

    /// True if a call has left `counter`. An empty one is no state, or one that counts as empty and
    /// was not touched.
    fn is_left(&self, raw: Option<&[u8]>, outcome: &Outcome, counter: &Counter) -> bool {
        let left = decode(outcome.state.as_deref());
        let is_untouched = outcome.state.as_deref() == raw;
        match left {
            Ok(left) if is_untouched => self.own(left) == *counter,
            Ok(left) => left == *counter,
            Err(_) => is_untouched && *counter == Counter::Empty,
        }
    }
}

/// The counter in `raw`, also of the format before this one.
fn decode(raw: Option<&[u8]>) -> Result<Counter, String> {
    let mut left = raw.unwrap_or_default();
    let head = StateHead::read(&mut left);
    let old = StateHead { version: OLD_BUCKET_VERSION, algorithm: TOKEN_BUCKET };
    if head != Some(old) || left.len() < OldBucket::SIZE {
        return stored::decode(raw);
    }
    let (bucket, leases) = left.split_at(OldBucket::SIZE);
    let this = [&[BUCKET_VERSION, TOKEN_BUCKET], bucket, &u32::MAX.to_le_bytes(), leases].concat();
    stored::decode(Some(&this))
}

fn hits_of(limit: &Limit, choice: u8) -> Hits {
    let capacity = limit.capacity();
    let hits =
        [1, 1, 2, 3, capacity, capacity + 1, 1 << 33, SATURATION, u64::MAX, capacity / 2 + 1];
    let hits = pick(&hits, choice / 4);
    match choice % 4 {
        0 => Hits::Peek(u64::from(!limit.settles())),
        1 => Hits::Refund(hits),
        2 if limit.settles() => Hits::Book(hits),
        _ => Hits::Take(hits),
    }
}

fn lease_of(limit: &Limit, choice: u8, now: u64) -> Option<LeaseAsk> {
    let ttl = pick(&TTLS, choice / 4);
    let tokens = [0, 1, 2, limit.capacity()];
    let tokens = pick(&tokens, choice / 16);
    let until = Timestamp::from_micros(now - now % ttl + ttl);
    let finished = (choice % 4 > 1).then_some(Lease { tokens: 1, until });
    let ttl = Duration::from_micros(ttl);
    let ask = LeaseAsk { tokens, most: tokens + u64::from(choice / 64) * 2, ttl, finished };
    (!choice.is_multiple_of(4)).then_some(ask)
}

fn change_of(limit: &Limit, choice: u8, hits: u64, now: u64) -> Change {
    let period = limit.period_micros();
    let ago = [0, 1, period / 2, period - 1, period, now];
    let ago = pick(&ago, choice / 2);
    let charged_at = Timestamp::from_micros(now.saturating_sub(ago));
    match choice % 8 {
        0 | 2 => return Change::GiveBack { hits, charged_at },
        4 => return Change::Return { hits, charged_at },
        6 => return Change::Charge { hits },
        _ => {}
    }
    Change::Tell(match limit.algorithm() {
        Algorithm::TokenBucket { .. } => Told::Bucket { micros: ago },
        Algorithm::SlidingWindow { .. } => Told::Sliding { hits, age: ago },
        Algorithm::FixedWindow | Algorithm::Concurrency => {
            let end = now - now % period + if ago == 1 { 0 } else { period };
            Told::Fixed { hits, ends_at: Timestamp::from_micros(end) }
        }
    })
}

fn pick<T: Copy>(from: &[T], choice: u8) -> T {
    from[usize::from(choice) % from.len()]
}
