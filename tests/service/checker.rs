//! Holds a trace of admitted requests against a promise.
//!
//! It knows when a request was sent and when it was answered, not when it was decided. So it counts an excess only
//! where every placement of the decisions between those times shows it: among requests sent and answered
//! within the interval.

use std::time::Duration;

/// One admitted request, by the caller's clock.
#[derive(Clone, Copy, Debug)]
pub struct Admitted {
    pub sent: Duration,
    pub answered: Duration,
}

/// What an algorithm promises.
#[derive(Clone, Copy, Debug)]
pub enum Promise {
    /// At most `limit` in any window.
    Window { limit: u64, window: Duration },
    /// At most `limit` in each window aligned to the epoch, where the trace's zero is `origin` after the epoch.
    Aligned { limit: u64, window: Duration, origin: Duration },
    /// At most burst + rate * t in any interval t.
    Bucket { burst: u64, limit: u64, period: Duration },
}

impl Promise {
    /// Every interval from one sending to one answer is looked at.
    pub fn check(&self, trace: &[Admitted]) -> Result<(), String> {
        if let Self::Aligned { limit, window, origin } = self {
            return check_aligned(trace, *limit, *window, *origin);
        }
        for first in trace {
            let mut within: Vec<Duration> =
                trace.iter().filter(|a| a.sent >= first.sent).map(|a| a.answered).collect();
            within.sort();
            for (i, answered) in within.iter().enumerate() {
                let (count, interval) = (i as u64 + 1, answered.saturating_sub(first.sent));
                let excess = match self {
                    Self::Aligned { .. } => false,
                    Self::Window { limit, window } => interval < *window && count > *limit,
                    Self::Bucket { burst, limit, period } => {
                        let refilled =
                            interval.as_secs_f64() / period.as_secs_f64() * *limit as f64;
                        count as f64 > *burst as f64 + refilled + 1e-6
                    }
                };
                if excess {
                    return Err(format!(
                        "{count} admitted within {interval:?} from {:?}",
                        first.sent
                    ));
                }
            }
        }
        Ok(())
    }
}

fn check_aligned(
    trace: &[Admitted],
    limit: u64,
    window: Duration,
    origin: Duration,
) -> Result<(), String> {
    let index = |at: Duration| (origin + at).as_micros() / window.as_micros();
    let mut counts = std::collections::BTreeMap::<u128, u64>::new();
    // Sent and answered in one window: it was decided there, by the same machine's clock.
    for admitted in trace.iter().filter(|a| index(a.sent) == index(a.answered)) {
        *counts.entry(index(admitted.sent)).or_default() += 1;
    }
    match counts.into_iter().find(|(_, count)| *count > limit) {
        Some((index, count)) => Err(format!("{count} admitted in window {index}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use tollgate::domain::{Algorithm, Charge, Counter, Hits, Limit, Timestamp};

    use super::*;

    /// What an algorithm admits of a request every 5 ms for 3 s that begin 300 ms before a window's edge.
    fn trace(algorithm: Algorithm) -> Vec<Admitted> {
        let second = Duration::from_secs(1);
        let limit = Limit::new(50, second, algorithm, Charge::Admitted).unwrap();
        let mut counter = Counter::Empty;
        (0..600)
            .map(|i| Duration::from_micros(1_700_000_000_700_000 + i * 5_000))
            .filter(|at| {
                let now = Timestamp::from_micros(u64::try_from(at.as_micros()).unwrap());
                counter.step(&limit, Hits::Take(1), now).passed
            })
            .map(|at| Admitted { sent: at, answered: at + Duration::from_micros(900) })
            .collect()
    }

    #[test]
    fn convicts_the_edge_of_a_fixed_window_and_acquits_the_sliding_one() {
        let promise = Promise::Window { limit: 50, window: Duration::from_secs(1) };
        assert!(promise.check(&trace(Algorithm::FixedWindow)).is_err());
        promise.check(&trace(Algorithm::SlidingWindow { slots: 10 })).unwrap();
    }

    #[test]
    fn holds_a_fixed_window_to_its_edges_and_convicts_more() {
        let window = Duration::from_secs(1);
        let promise = |limit| Promise::Aligned { limit, window, origin: Duration::ZERO };
        let fixed = trace(Algorithm::FixedWindow);
        promise(50).check(&fixed).unwrap();
        assert!(promise(49).check(&fixed).is_err());
    }

    #[test]
    fn convicts_a_bucket_of_twice_the_burst() {
        let bucket = trace(Algorithm::TokenBucket { burst: 50 });
        let promise = |burst| Promise::Bucket { burst, limit: 50, period: Duration::from_secs(1) };
        promise(50).check(&bucket).unwrap();
        assert!(promise(25).check(&bucket).is_err());
    }
}
