use super::*;
use crate::domain::share::turn;
use crate::domain::{Counter, Timestamp};

const START: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

fn bucket(requests: u32, micros: u64, burst: u32, max_wait: u64) -> Limit {
    let algorithm = Algorithm::TokenBucket { burst };
    Limit::new(requests, Duration::from_micros(micros), algorithm, Charge::Admitted)
        .unwrap()
        .waiting(Duration::from_micros(max_wait))
}

/// The hits by the time at which they are used, of a random trace of requests; refused are those
/// that were denied.
struct Used {
    hits: Vec<(u64, u64)>,
    refused: u64,
}

fn trace(limit: &Limit, random: &mut fastrand::Rng) -> Used {
    let (mut counter, mut now) = (Counter::Empty, START);
    let mut used = Used { hits: Vec::new(), refused: 0 };
    let pace = limit.period_micros().div_ceil(limit.requests().into());
    for _ in 0..200 {
        let apart = random.u64(0..=2 * pace);
        now = now.plus_micros(random.choice([0, 0, 1, apart]).unwrap());
        let hits = random.u64(1..=limit.capacity().min(3) + 1);
        let reading = counter.step(limit, Hits::Take(hits), now);
        let wait = limit.wait(Hits::Take(hits), &reading);
        assert!(wait <= limit.max_wait(), "{wait:?}");
        if reading.passed {
            assert!(hits <= limit.capacity(), "{hits} hits");
            let at = now.as_micros() - START.as_micros() + wait.as_micros() as u64;
            used.hits.push((at, hits));
        } else {
            used.refused += 1;
        }
    }
    used.hits.sort_unstable();
    used
}

/// The most that was used beyond burst + rate * t in any interval of length t, in parts of a hit:
/// one of `period` each.
fn excess(limit: &Limit, used: &Used, slack: u64) -> i128 {
    let (n, period) = (i128::from(limit.requests()), i128::from(limit.period_micros()));
    let mut worst = i128::MIN;
    for (i, (start, _)) in used.hits.iter().enumerate() {
        let mut sum = 0;
        for (end, hits) in &used.hits[i..] {
            sum += i128::from(*hits);
            let promised =
                i128::from(limit.capacity()) * period + n * i128::from(end - start + slack);
            worst = worst.max(sum * period - promised);
        }
    }
    worst
}

#[test]
fn hits_that_wait_are_used_within_burst_and_rate() {
    let (mut waited, mut refused, mut closest) = (0, 0, i128::MIN);
    for seed in 0..400 {
        let mut random = fastrand::Rng::with_seed(seed);
        let max_wait = random.choice([0, 5, 20, 60]).unwrap();
        let (pace, burst) = (random.u64(1..=9), random.u32(1..=8));
        // A hit each `pace` microseconds: no rounding.
        let limit = bucket(1, pace, burst, max_wait);
        let used = trace(&limit, &mut random);
        let found = excess(&limit, &used, 0);
        assert!(found <= 0, "{found} beyond {limit:?}");
        closest = closest.max(found);
        refused += used.refused;
        waited += u64::from(max_wait > 0);
        // A wait is rounded up to a microsecond, which shortens the interval to the next one.
        let limit = bucket(random.u32(1..=999), 1_000 * pace, burst, 100 * max_wait);
        assert!(excess(&limit, &trace(&limit, &mut random), 2) <= 0, "{limit:?}");
    }
    assert_eq!(closest, 0, "the promise is used up");
    assert!(waited > 200 && refused > 10_000, "{waited} with waits, {refused} refused");
}

#[test]
fn numbers_of_a_bucket_that_waits() {
    // A hit each second, two at once, and two more that wait.
    let limit = bucket(1, 1_000_000, 2, 2_500_000);
    let mut counter = Counter::Empty;
    let mut take = |hits, millis: u64| {
        let now = START.plus_micros(millis * 1_000);
        let reading = counter.step(&limit, Hits::Take(hits), now);
        let wait = limit.wait(Hits::Take(hits), &reading).as_millis();
        let retry = reading.retry_after.map(|retry| retry.as_millis());
        (reading.passed, reading.remaining, reading.over, wait, retry)
    };
    assert_eq!(take(1, 0), (true, 1, 0, 0, Some(0)));
    assert_eq!(take(1, 0), (true, 0, 0, 0, Some(0)));
    assert_eq!(take(1, 0), (true, 0, 1, 1_000, Some(0)));
    assert_eq!(take(1, 0), (true, 0, 2, 2_000, Some(0)));
    assert_eq!(take(1, 0), (false, 0, 2, 0, Some(500)), "half a second beyond the longest wait");
    assert_eq!(take(1, 500), (true, 0, 3, 2_500, Some(0)));
    assert_eq!(take(3, 60_000), (false, 2, 0, 0, None), "more than fit at once never pass");
    assert_eq!((limit.passing(), limit.capacity()), (5, 2));
    assert_eq!(limit.ceiling(), limit.cost(5));
    assert_eq!(limit.reach(), Reach::of_hits(5));
}

#[test]
fn only_buckets_that_charge_on_admission_wait() {
    let second = Duration::from_secs(1);
    let bucket = Algorithm::TokenBucket { burst: 2 };
    let always = Charge::Always { max_debt: None };
    for (requests, algorithm, charge) in [
        (5, Algorithm::FixedWindow, Charge::Admitted),
        (5, Algorithm::SlidingWindow { slots: 3 }, Charge::Admitted),
        (5, bucket, always),
        (0, Algorithm::TokenBucket { burst: 0 }, Charge::Admitted),
    ] {
        let limit = Limit::new(requests, second, algorithm, charge).unwrap();
        assert_eq!(limit.waiting(second), limit);
    }
    let limit = Limit::new(5, second, bucket, Charge::Admitted).unwrap();
    assert_eq!(limit.waiting(Duration::ZERO), limit);
    assert_eq!(limit.waiting(Duration::from_mins(1)).max_wait(), Limit::MAX_WAIT);
}

#[test]
fn share_waits_as_long_as_the_limit() {
    let whole = bucket(10, 1_000_000, 10, 300_000);
    for replicas in [1, 2, 3, 16] {
        for rank in 0..replicas {
            let share = whole.share(replicas, turn(rank, 0, replicas)).unwrap();
            assert_eq!(share.max_wait(), whole.max_wait());
            let capacity = share.cost(share.capacity());
            assert_eq!(share.full().micros, capacity.micros + 300_000);
            assert!(share.ceiling() >= share.full());
            assert_eq!(share.reach(), Reach::of_hits(share.passing() * u64::from(replicas)));
            let mut random = fastrand::Rng::with_seed(rank.into());
            assert!(excess(&share, &trace(&share, &mut random), 2) <= 0, "{share:?}");
        }
    }
    assert_eq!(whole.share(1, 0), Some(whole));
}

#[test]
fn state_of_a_limit_that_waits_is_not_clamped_by_others() {
    let waits = bucket(1, 1_000_000, 2, 2_500_000);
    let algorithm = Algorithm::TokenBucket { burst: 2 };
    let plain = Limit::new(1, Duration::from_secs(1), algorithm, Charge::Admitted).unwrap();
    // Of the same reach as the one that waits.
    let larger = bucket(1, 1_000_000, 5, 0);
    assert_eq!(larger.reach(), waits.reach());
    for other in [plain, larger] {
        let mut counter = Counter::Empty;
        let hits = waits.passing().min(larger.capacity());
        for _ in 0..hits {
            assert!(counter.step(&larger, Hits::Take(1), START).passed);
        }
        let before = counter.clone();
        counter.step(&waits, Hits::Take(1), START);
        counter.step(&other, Hits::Peek(1), START);
        assert_eq!(counter, before, "five hits are used, whoever looks");
    }
}
