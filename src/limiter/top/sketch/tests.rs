//! The sketch against exact counts: random streams, minutes that pass, threads, bounded memory.

use std::cell::Cell;
use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};

use proptest::prelude::*;

use super::*;

/// The exact counts: by set and minute, and by item and minute.
#[derive(Default)]
struct Oracle {
    sets: HashMap<(usize, u64), u64>,
    items: HashMap<(u64, u64), u64>,
}

impl Oracle {
    fn count(&mut self, set: usize, item: u64, minute: u64) {
        *self.sets.entry((set, minute)).or_default() += 1;
        *self.items.entry((item, minute)).or_default() += 1;
    }

    /// The counts of an item in `minute` and in the one before.
    fn of_item(&self, item: u64, minute: u64) -> u64 {
        minutes(minute).map(|minute| self.items.get(&(item, minute)).copied().unwrap_or(0)).sum()
    }

    /// The largest error of an item of `set`. An item that is not listed may be counted once
    /// more in each minute.
    fn error(&self, set: usize, minute: u64) -> u64 {
        let of = |minute| self.sets.get(&(set, minute)).copied().unwrap_or(0);
        minutes(minute).map(|minute| of(minute) / LINES as u64).sum()
    }
}

fn minutes(minute: u64) -> impl Iterator<Item = u64> {
    minute.saturating_sub(1)..=minute
}

/// Compares everything that the sketch says with the exact counts.
fn assert_bounds(sketch: &Sketch<u64>, hash: impl Fn(u64) -> u64, oracle: &Oracle, minute: u64) {
    let set = |item| ((hash(item) >> 32) % SETS_PER_RULE) as usize % sketch.sets.len();
    let known: HashMap<u64, Estimate<u64>> = estimates([sketch].into_iter(), minute)
        .into_iter()
        .map(|known| (known.item, known))
        .collect();
    for (item, Estimate { count, error, .. }) in &known {
        let exact = oracle.of_item(*item, minute);
        assert!((count - error..=*count).contains(&exact), "{exact} of {item}: {known:?}");
        let most = oracle.error(set(*item), minute);
        assert!(*error <= most, "error {error} above {most}: {known:?}");
    }
    for (item, _) in oracle.items.keys().filter(|(item, _)| !known.contains_key(item)) {
        let (exact, most) = (oracle.of_item(*item, minute), oracle.error(set(*item), minute));
        assert!(exact <= most + 2, "{exact} of {item} above {most}, not listed: {known:?}");
    }
}

proptest! {
    /// Few items in few sets, so that lines are taken over often; minutes that pass, some of them
    /// without a count.
    #[test]
    fn counts_are_within_the_error_and_frequent_items_are_listed(
        lines in 1_usize..80,
        spread in 1_u64..400,
        stream in prop::collection::vec((any::<u64>(), any::<u64>(), 0_u32..300), 1..3_000),
    ) {
        let (sketch, random) = (Sketch::new(lines), RandomState::new());
        let hash = |item: u64| random.hash_one(item);
        let (mut oracle, mut minute) = (Oracle::default(), 1);
        for (one, other, chance) in stream {
            if chance == 0 {
                assert_bounds(&sketch, hash, &oracle, minute);
                minute += 1 + one % 3;
            }
            // The smaller of two is skewed to small numbers: these are the frequent ones.
            let item = (one % spread).min(other % spread);
            sketch.count(0, hash(item), minute, || item);
            let set = ((hash(item) >> 32) % SETS_PER_RULE) as usize % sketch.sets.len();
            oracle.count(set, item, minute);
        }
        assert_bounds(&sketch, hash, &oracle, minute);
        assert_bounds(&sketch, hash, &oracle, minute + 1);
    }
}

#[test]
fn few_items_are_counted_exactly_and_decay_by_minutes() {
    let sketch = Sketch::new(LINES);
    let counted = |minute| {
        let mut all = estimates([&sketch].into_iter(), minute);
        all.sort_unstable_by_key(|known| known.item);
        assert!(all.iter().all(|known| known.error == 0));
        all.iter().map(|known| (known.item, known.count)).collect::<Vec<_>>()
    };
    let count =
        |item, times, minute| (0..times).for_each(|_| sketch.count(0, item, minute, || item));
    count(1, 5, 10);
    count(2, 3, 10);
    count(2, 4, 11);
    count(3, 1, 11);
    assert_eq!(counted(11), [(1, 5), (2, 7), (3, 1)]);
    count(3, 1, 9);
    assert_eq!(counted(11), [(1, 5), (2, 7), (3, 2)], "a late count is one of the current minute");
    assert_eq!(counted(12), [(2, 4), (3, 2)]);
    assert_eq!(counted(13), []);
    count(1, 2, 13);
    assert_eq!(counted(13), [(1, 2)]);
    count(1, 1, 100);
    assert_eq!(counted(100), [(1, 1)], "minutes without a count pass, too");
}

#[test]
fn flood_of_different_items_takes_bounded_memory_and_few_descriptions() {
    const ITEMS: usize = 256;
    const FLOOD: u64 = 1_000_000;
    let (sketch, random) = (Sketch::new(ITEMS), RandomState::new());
    let (frequent, described) = (u64::MAX, Cell::new(0_u64));
    for item in 0..FLOOD {
        for item in [item, frequent].into_iter().take(1 + usize::from(item % 100 == 0)) {
            sketch.count(0, random.hash_one(item), 1, || {
                described.set(described.get() + 1);
                item
            });
        }
    }
    let known = estimates([&sketch].into_iter(), 1);
    assert!(known.len() <= ITEMS, "{}", known.len());
    let found = known.iter().find(|known| known.item == frequent).expect("1 % of all");
    let exact = FLOOD / 100;
    assert!((found.count - found.error..=found.count).contains(&exact), "{found:?}");
    // That of a free line, and some for the frequent item.
    assert!(described.get() < 2 * ITEMS as u64, "{described:?} descriptions");
    assert!(sketch.sets.iter().all(|set| set.lock().now.0.capacity() <= LINES));
}

#[test]
fn threads_lose_no_count() {
    let sketch = Sketch::new(64);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..40_000_u64).for_each(|i| sketch.count(0, i % 4, 1, || i % 4)));
        }
    });
    let mut known = estimates([&sketch].into_iter(), 1);
    known.sort_unstable_by_key(|known| known.item);
    let exact = |item| Estimate { item, count: 40_000, error: 0 };
    assert_eq!(known, [0, 1, 2, 3].map(exact));
}

#[test]
fn sketch_without_lines_counts_nothing() {
    let sketch = Sketch::new(0);
    sketch.count(0, 1, 1, || panic!("described"));
    assert!(sketch.is_off() && estimates([&sketch].into_iter(), 1).is_empty());
}

/// Several threads' sketches together, and a rule beside a flood of another one.
#[test]
fn merged_counts_are_within_the_error_on_a_zipf_stream() {
    const ITEMS: u64 = 100_000;
    let (sketches, random) = ([Sketch::new(1_024), Sketch::new(1_024)], RandomState::new());
    let (mut exact, mut seed) = (HashMap::<u64, u64>::new(), 88_172_645_463_325_252_u64);
    for _ in 0..400_000 {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        // The inverse of the distribution function of 1/x on 1..ITEMS.
        let uniform = (seed >> 11) as f64 / (1_u64 << 53) as f64;
        let item = (ITEMS as f64).powf(uniform) as u64;
        *exact.entry(item).or_default() += 1;
        sketches[(seed >> 5) as usize % 2].count(3, random.hash_one(item), 7, || item);
    }
    sketches[0].count(30, random.hash_one(0), 7, || 0);
    let known = estimates(sketches.iter(), 7);
    for Estimate { item, count, error } in &known {
        let exact = exact.get(item).copied().unwrap_or(1);
        assert!((count - error..=*count).contains(&exact), "{exact} of {item}: {count} - {error}");
    }
    let listed = |item| known.iter().any(|known| known.item == item);
    // A set of a sketch counts 12 500 items, so an item above 782 in each is listed: the first 20.
    assert!((1..=20).all(listed), "the most frequent are listed");
    let quiet = known.iter().find(|known| known.item == 0).expect("the other rule has lines");
    assert_eq!((quiet.count, quiet.error), (1, 0));
    let lines: usize = sketches
        .iter()
        .flat_map(|sketch| sketch.sets.iter().map(|set| set.lock().now.0.len()))
        .sum();
    assert!(lines * size_of::<Line<u64>>() < 100_000, "{lines} lines for {} values", exact.len());
}
