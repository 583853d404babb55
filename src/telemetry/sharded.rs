//! Sharded counters and histograms: each thread writes its own shard, and a scrape sums the shards.
//!
//! The histogram of prometheus-client has a mutex for the whole process, and its counter is one
//! cache line that all cores write. Both are too slow for decisions.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// Threads other than those of the cores: the main thread, control, and its workers.
const OTHER_THREADS: usize = 4;
const MAX_SHARDS: usize = 64;

/// A value on its own pair of cache lines. A pair, because processors prefetch lines in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded<T>(T);

/// One value per thread. If there are more threads than shards, threads share a shard.
#[derive(Debug)]
struct Shards<T>(Arc<[Padded<T>]>);

impl<T> Clone for Shards<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Default> Shards<T> {
    fn new() -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Self((0..(cores + OTHER_THREADS).min(MAX_SHARDS)).map(|_| Padded::default()).collect())
    }
}

impl<T> Shards<T> {
    #[expect(clippy::indexing_slicing, reason = "the index is below the length, which is not 0")]
    fn own(&self) -> &T {
        &self.0[thread_number() % self.0.len()].0
    }

    fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|padded| &padded.0)
    }
}

/// The number of this thread, counted from 0 in the order of first use.
fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed));
    NUMBER.with(|number| *number)
}

/// Counters per block of a shard: as many as fill a pair of cache lines.
const COUNTERS_PER_BLOCK: usize = 16;

type Block = [AtomicU64; COUNTERS_PER_BLOCK];

/// A counter.
///
/// Counters are packed, because each rule has three: a counter takes 8 bytes per shard. Its
/// neighbours in memory belong to the same thread.
#[derive(Clone, Debug)]
pub struct ShardedCounter {
    blocks: Shards<Block>,
    /// The place in each block, below [`COUNTERS_PER_BLOCK`].
    slot: usize,
}

impl Default for ShardedCounter {
    /// A counter at zero. Takes a lock, which is for start and reload.
    fn default() -> Self {
        static UNFILLED: Mutex<Option<ShardedCounter>> = Mutex::new(None);
        let mut unfilled = UNFILLED.lock();
        let next = unfilled.take().unwrap_or_else(|| Self { blocks: Shards::new(), slot: 0 });
        if next.slot + 1 < COUNTERS_PER_BLOCK {
            *unfilled = Some(Self { blocks: next.blocks.clone(), slot: next.slot + 1 });
        }
        next
    }
}

impl ShardedCounter {
    /// Adds one.
    pub fn inc(&self) {
        self.inc_by(1);
    }

    /// Adds `count`.
    pub fn inc_by(&self, count: u64) {
        self.of(self.blocks.own()).fetch_add(count, Ordering::Relaxed);
    }

    /// The sum of all shards.
    pub fn get(&self) -> u64 {
        self.blocks.iter().map(|block| self.of(block).load(Ordering::Relaxed)).sum()
    }

    #[expect(clippy::indexing_slicing, reason = "the slot is below the length of a block")]
    fn of<'a>(&self, block: &'a Block) -> &'a AtomicU64 {
        &block[self.slot]
    }
}

impl TypedMetric for ShardedCounter {
    const TYPE: MetricType = MetricType::Counter;
}

impl EncodeMetric for ShardedCounter {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        encoder.encode_counter::<NoLabelSet, _, u64>(&self.get(), None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

/// The number of buckets of a histogram, including the one without an upper bound.
const BUCKETS: usize = 16;
/// The upper bound of the first bucket: 10 µs. Each following bound is twice as large, up to 164
/// ms, which is above the usual timeout of Envoy.
const FIRST_NANOS: u64 = 10_000;

/// The upper bounds of all buckets but the last, in nanoseconds, ascending.
pub type Bounds = [u64; BUCKETS - 1];

/// A histogram of durations, by default with buckets from 10 µs to 164 ms.
#[derive(Clone, Debug)]
pub struct DurationHistogram {
    shards: Shards<HistogramShard>,
    /// None: each bound is twice the one before.
    bounds: Option<&'static Bounds>,
}

#[derive(Debug, Default)]
struct HistogramShard {
    buckets: [AtomicU64; BUCKETS],
    sum_nanos: AtomicU64,
}

/// The content of a histogram.
#[derive(Clone, Copy, Debug)]
pub struct Durations {
    /// The upper bound in seconds and the count of each bucket, ascending; the last is infinite.
    pub buckets: [(f64, u64); BUCKETS],
    /// The sum of all durations, in seconds.
    pub sum: f64,
}

impl Durations {
    /// The number of durations.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }
}

impl Default for DurationHistogram {
    fn default() -> Self {
        Self { shards: Shards::new(), bounds: None }
    }
}

impl DurationHistogram {
    /// A histogram with these buckets.
    pub fn with_bounds(bounds: &'static Bounds) -> Self {
        Self { shards: Shards::new(), bounds: Some(bounds) }
    }

    /// Counts `duration`.
    #[expect(clippy::indexing_slicing, reason = "`bucket_of` is below the number of buckets")]
    pub fn observe(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let bucket = match self.bounds {
            Some(bounds) => bounds.partition_point(|bound| *bound < nanos),
            None => bucket_of(nanos),
        };
        let shard = self.shards.own();
        shard.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        shard.sum_nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// The sum of all shards.
    pub fn read(&self) -> Durations {
        let bound = |bucket: usize| match self.bounds {
            Some(bounds) => bounds.get(bucket).map_or(f64::INFINITY, |bound| *bound as f64 / 1e9),
            None => upper_bound(bucket),
        };
        let mut buckets: [(f64, u64); BUCKETS] = std::array::from_fn(|i| (bound(i), 0));
        let mut sum_nanos = 0_u64;
        for shard in self.shards.iter() {
            for ((_, sum), bucket) in buckets.iter_mut().zip(&shard.buckets) {
                *sum += bucket.load(Ordering::Relaxed);
            }
            sum_nanos = sum_nanos.saturating_add(shard.sum_nanos.load(Ordering::Relaxed));
        }
        Durations { buckets, sum: sum_nanos as f64 / 1e9 }
    }
}

/// The first bucket whose upper bound is not below `nanos`.
fn bucket_of(nanos: u64) -> usize {
    let firsts = nanos.div_ceil(FIRST_NANOS).max(1);
    (firsts.next_power_of_two().trailing_zeros() as usize).min(BUCKETS - 1)
}

/// The upper bound of a bucket in seconds.
fn upper_bound(bucket: usize) -> f64 {
    if bucket == BUCKETS - 1 {
        return f64::INFINITY;
    }
    (FIRST_NANOS << bucket) as f64 / 1e9
}

impl TypedMetric for DurationHistogram {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for DurationHistogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let durations = self.read();
        let Durations { buckets, sum } = &durations;
        encoder.encode_histogram::<NoLabelSet>(*sum, durations.count(), buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn every_thread_is_counted() {
        let counter = ShardedCounter::default();
        thread::scope(|scope| {
            for _ in 0..100 {
                scope.spawn(|| (0..1_000).for_each(|_| counter.inc()));
            }
        });
        assert_eq!(counter.get(), 100_000);
    }

    #[test]
    fn shards_share_no_pair_of_cache_lines() {
        assert_eq!(align_of::<Padded<AtomicU64>>(), 128);
        assert_eq!(size_of::<Padded<AtomicU64>>(), 128);
        assert_eq!(size_of::<Padded<Block>>(), 128, "a block fills the pair");
    }

    #[test]
    fn packed_counters_are_counted_apart() {
        let counters: Vec<ShardedCounter> = (0..100).map(|_| ShardedCounter::default()).collect();
        counters.iter().zip(1..).for_each(|(counter, count)| counter.inc_by(count));
        assert!(counters.iter().zip(1..).all(|(counter, count)| counter.get() == count));
    }

    #[test]
    fn durations_fall_into_the_first_bucket_that_holds_them() {
        let table = [
            (0, 0),
            (10_000, 0),
            (10_001, 1),
            (20_000, 1),
            (20_001, 2),
            (163_840_000, 14),
            (163_840_001, 15),
            (u64::MAX, 15),
        ];
        for (nanos, bucket) in table {
            assert_eq!(bucket_of(nanos), bucket, "{nanos}");
            assert!(nanos as f64 / 1e9 <= upper_bound(bucket));
        }
        let histogram = DurationHistogram::default();
        for micros in [5, 15, 15, 200_000] {
            histogram.observe(Duration::from_micros(micros));
        }
        let mut registry = Registry::default();
        registry.register("h", "Help", histogram);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "h_sum 0.200035",
            "h_count 4",
            "h_bucket{le=\"0.00001\"} 1",
            "h_bucket{le=\"0.00002\"} 3",
            "h_bucket{le=\"0.16384\"} 3",
            "h_bucket{le=\"+Inf\"} 4",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }
}
