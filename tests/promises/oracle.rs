//! Naive models of the three algorithms for a forward clock.

use tollgate::domain::Hits;

/// A bucket as a deficit: used hits times the period, drained by n per microsecond.
pub struct Bucket {
    n: i128,
    burst: i128,
    period: i128,
    deficit: i128,
    at: u64,
}

impl Bucket {
    pub fn new(n: u32, burst: u32, period: u64) -> Self {
        Self { n: n.into(), burst: burst.into(), period: period.into(), deficit: 0, at: 0 }
    }

    pub fn step(&mut self, now: u64, hits: Hits) -> (bool, u64) {
        self.deficit = (self.deficit - self.n * i128::from(now - self.at)).max(0);
        self.at = now;
        let full = self.burst * self.period;
        let passed = match hits {
            Hits::Refund(given) => {
                self.deficit = (self.deficit - i128::from(given) * self.period).max(0);
                true
            }
            Hits::Peek(_) | Hits::Book(_) | Hits::Hold(_) => self.deficit + self.period <= full,
            Hits::Take(hits) => {
                let charged = self.deficit + i128::from(hits) * self.period;
                let passed = charged <= full;
                if passed {
                    self.deficit = charged;
                }
                passed
            }
        };
        (passed, u64::try_from((full - self.deficit) / self.period).unwrap())
    }
}

/// Every hit remembered for a period.
pub struct Log {
    n: u64,
    period: u64,
    /// Oldest first.
    hits: Vec<u64>,
}

impl Log {
    pub fn new(n: u32, period: u64) -> Self {
        Self { n: n.into(), period, hits: Vec::new() }
    }

    pub fn would_pass(&mut self, now: u64, hits: Hits) -> bool {
        self.hits.retain(|at| at + self.period > now);
        self.hits.len() as u64 + hits.needed() <= self.n
    }

    pub fn charge(&mut self, now: u64, hits: Hits) {
        match hits {
            Hits::Take(hits) => self.hits.extend((0..hits).map(|_| now)),
            Hits::Refund(given) => {
                self.hits.drain(..(given as usize).min(self.hits.len()));
            }
            Hits::Peek(_) | Hits::Book(_) | Hits::Hold(_) => {}
        }
    }

    pub fn step(&mut self, now: u64, hits: Hits) -> (bool, u64) {
        let passed = matches!(hits, Hits::Refund(_)) | self.would_pass(now, hits);
        if passed {
            self.charge(now, hits);
        }
        (passed, self.n - self.hits.len() as u64)
    }
}

/// A count per aligned window.
pub struct Windows {
    n: u64,
    period: u64,
    counts: std::collections::HashMap<u64, u64>,
}

impl Windows {
    pub fn new(n: u32, period: u64) -> Self {
        Self { n: n.into(), period, counts: std::collections::HashMap::new() }
    }

    pub fn step(&mut self, now: u64, hits: Hits) -> (bool, u64) {
        let count = self.counts.entry(now / self.period).or_default();
        let passed = matches!(hits, Hits::Refund(_)) || *count + hits.needed() <= self.n;
        match hits {
            Hits::Take(hits) if passed => *count += hits,
            Hits::Refund(given) => *count = count.saturating_sub(given),
            _ => {}
        }
        (passed, self.n - *count)
    }
}
