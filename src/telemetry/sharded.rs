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
        Self((0..Self::count()).map(|_| Padded::default()).collect())
    }
}

/// One value per thread, as far as there are shards.
#[derive(Debug)]
pub struct PerThread<T>(Shards<T>);

impl<T> PerThread<T> {
    /// Values that `make` makes.
    pub fn new(make: impl Fn() -> T) -> Self {
        Self(Shards((0..Shards::<T>::count()).map(|_| Padded(make())).collect()))
    }

    /// That of this thread, which it shares with others if there are more threads than shards.
    pub fn own(&self) -> &T {
        self.0.own()
    }

    /// Those of all threads.
    pub fn iter(&self) -> impl Iterator<Item = &T> + Clone {
        self.0.iter()
    }
}

impl<T> Shards<T> {
    fn count() -> usize {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        (cores + OTHER_THREADS).min(MAX_SHARDS)
    }

    #[expect(clippy::indexing_slicing, reason = "the index is below the length, which is not 0")]
    fn own(&self) -> &T {
        &self.0[thread_number() % self.0.len()].0
    }

    fn iter(&self) -> impl Iterator<Item = &T> + Clone {
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

/// A number that rises and falls. A thread may take back what another has added.
#[derive(Clone, Debug, Default)]
pub struct ShardedGauge(ShardedCounter);

/// One of what a [`ShardedGauge`] counts, until it is dropped.
#[derive(Debug)]
pub struct Counted(ShardedGauge);

impl ShardedGauge {
    /// Counts one until the result is dropped.
    #[must_use]
    pub fn hold(&self) -> Counted {
        self.0.inc();
        Counted(self.clone())
    }

    /// The sum of all shards.
    pub fn get(&self) -> i64 {
        // A shard below zero and the one that makes up for it wrap around together.
        let all = self.0.blocks.iter().map(|block| self.0.of(block).load(Ordering::Relaxed));
        all.fold(0_u64, u64::wrapping_add).cast_signed()
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let counter = &self.0.0;
        counter.of(counter.blocks.own()).fetch_sub(1, Ordering::Relaxed);
    }
}

impl TypedMetric for ShardedGauge {
    const TYPE: MetricType = MetricType::Gauge;
}

impl EncodeMetric for ShardedGauge {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        encoder.encode_gauge(&self.get())
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
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

/// The upper bounds of all buckets but the last, ascending.
pub type Bounds = [u64; BUCKETS - 1];

/// A histogram of whole numbers.
#[derive(Clone, Debug)]
struct Histogram {
    shards: Shards<HistogramShard>,
    bounds: &'static Bounds,
    /// The numbers that make one of the unit that is shown.
    per_unit: f64,
}

#[derive(Debug, Default)]
struct HistogramShard {
    buckets: [AtomicU64; BUCKETS],
    sum: AtomicU64,
}

/// The content of a histogram, in the unit that is shown.
#[derive(Clone, Copy, Debug)]
pub struct Distribution {
    /// The upper bound and the count of each bucket, ascending; the last is infinite.
    pub buckets: [(f64, u64); BUCKETS],
    /// The sum of all values.
    pub sum: f64,
}

impl Distribution {
    /// The number of values.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }
}

impl Histogram {
    fn new(bounds: &'static Bounds, per_unit: f64) -> Self {
        Self { shards: Shards::new(), bounds, per_unit }
    }

    #[expect(clippy::indexing_slicing, reason = "there is one bucket more than bounds")]
    fn observe(&self, value: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        let shard = self.shards.own();
        shard.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        shard.sum.fetch_add(value, Ordering::Relaxed);
    }

    fn read(&self) -> Distribution {
        let bound = |bucket: usize| {
            self.bounds.get(bucket).map_or(f64::INFINITY, |bound| *bound as f64 / self.per_unit)
        };
        let mut buckets: [(f64, u64); BUCKETS] = std::array::from_fn(|i| (bound(i), 0));
        let mut total = 0_u64;
        for shard in self.shards.iter() {
            for ((_, sum), bucket) in buckets.iter_mut().zip(&shard.buckets) {
                *sum += bucket.load(Ordering::Relaxed);
            }
            total = total.saturating_add(shard.sum.load(Ordering::Relaxed));
        }
        Distribution { buckets, sum: total as f64 / self.per_unit }
    }

    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let read = self.read();
        encoder.encode_histogram::<NoLabelSet>(read.sum, read.count(), &read.buckets, None)
    }
}

/// A histogram of durations, shown in seconds.
#[derive(Clone, Debug)]
pub struct DurationHistogram(Histogram);

impl DurationHistogram {
    /// A histogram with these buckets, in nanoseconds.
    pub fn with_bounds(bounds: &'static Bounds) -> Self {
        Self(Histogram::new(bounds, 1e9))
    }

    /// Counts `duration`.
    pub fn observe(&self, duration: Duration) {
        self.0.observe(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }

    /// The sum of all shards, in seconds.
    pub fn read(&self) -> Distribution {
        self.0.read()
    }
}

/// A histogram of sizes.
#[derive(Clone, Debug)]
pub struct SizeHistogram(Histogram);

impl SizeHistogram {
    /// A histogram with these buckets.
    pub fn with_bounds(bounds: &'static Bounds) -> Self {
        Self(Histogram::new(bounds, 1.0))
    }

    /// Counts `size`.
    pub fn observe(&self, size: usize) {
        self.0.observe(size as u64);
    }
}

impl TypedMetric for DurationHistogram {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for DurationHistogram {
    fn encode(&self, encoder: MetricEncoder<'_>) -> fmt::Result {
        self.0.encode(encoder)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

impl TypedMetric for SizeHistogram {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for SizeHistogram {
    fn encode(&self, encoder: MetricEncoder<'_>) -> fmt::Result {
        self.0.encode(encoder)
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
        const BOUNDS: Bounds = [
            10_000,
            20_000,
            30_000,
            40_000,
            50_000,
            60_000,
            70_000,
            80_000,
            90_000,
            100_000,
            200_000,
            300_000,
            400_000,
            500_000,
            160_000_000,
        ];
        let histogram = DurationHistogram::with_bounds(&BOUNDS);
        for nanos in [0, 10_000, 10_001, 20_000, 160_000_000, 160_000_001] {
            histogram.observe(Duration::from_nanos(nanos));
        }
        let mut registry = Registry::default();
        registry.register("h", "Help", histogram);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "h_sum 0.320040002",
            "h_count 6",
            "h_bucket{le=\"0.00001\"} 2",
            "h_bucket{le=\"0.00002\"} 4",
            "h_bucket{le=\"0.0005\"} 4",
            "h_bucket{le=\"0.16\"} 5",
            "h_bucket{le=\"+Inf\"} 6",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn gauge_falls_on_whichever_thread_drops() {
        let gauge = ShardedGauge::default();
        let held: Vec<Counted> = (0..9).map(|_| gauge.hold()).collect();
        assert_eq!(gauge.get(), 9);
        thread::scope(|scope| _ = scope.spawn(move || drop(held)).join());
        assert_eq!(gauge.get(), 0);
    }

    #[test]
    fn sizes_are_shown_as_they_are() {
        const BOUNDS: Bounds = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256];
        let histogram = SizeHistogram::with_bounds(&BOUNDS);
        for size in [1, 2, 300] {
            histogram.observe(size);
        }
        let Distribution { buckets, sum } = histogram.0.read();
        assert!((sum - 303.0).abs() < 1e-9, "{sum}");
        assert_eq!(buckets.map(|(_, count)| count)[..3], [1, 1, 0]);
        assert!(buckets[15].0.is_infinite() && buckets[15].1 == 1);
    }
}
