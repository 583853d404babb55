//! Reads the states that the script writes, by the declared layout. `live.rs` has states of both formats as literal bytes.

use tollgate::domain::lease::{Outstanding, Slot};
use tollgate::domain::limit::{Reach, Span};
use tollgate::domain::{Counter, Timestamp, fixed_window, sliding_window, token_bucket};
use tollgate::store::redis::script::layout::{
    BUCKET_VERSION, Bucket, FIXED_WINDOW, Fixed, Leases, Record as _, Run, SLIDING_WINDOW, Sliding,
    StateHead, TOKEN_BUCKET, WINDOW_VERSION,
};

/// The counter in `raw`; nothing stored is an empty counter.
pub fn decode(raw: Option<&[u8]>) -> Result<Counter, String> {
    let Some(mut left) = raw else { return Ok(Counter::Empty) };
    let head = StateHead::read(&mut left);
    let counter = match head.map(|head| (head.version, head.algorithm)) {
        Some((BUCKET_VERSION, TOKEN_BUCKET)) => bucket(&mut left),
        Some((WINDOW_VERSION, SLIDING_WINDOW)) => sliding(&mut left),
        Some((WINDOW_VERSION, FIXED_WINDOW)) => {
            Fixed::read(&mut left).map(|Fixed { start, count }| {
                let start = Timestamp::from_micros(start);
                Counter::FixedWindow(fixed_window::WindowCount { start, count })
            })
        }
        _ => None,
    };
    counter
        .filter(|counter| left.is_empty() && is_sound(counter))
        .ok_or_else(|| format!("cannot be read: {}", raw.unwrap_or_default().escape_ascii()))
}

/// False for numbers that no decision leaves behind.
fn is_sound(counter: &Counter) -> bool {
    match counter {
        Counter::Empty => true,
        Counter::TokenBucket(bucket) => {
            let rate = u64::from(bucket.rate);
            let sound = |Outstanding { early, late }: &Outstanding| {
                let tokens = [early.tokens, late.tokens];
                early.until <= late.until
                    && tokens != [Span::default(); 2]
                    && tokens.iter().all(|span| span.remainder < rate)
            };
            u64::from(bucket.remainder) < rate && bucket.outstanding.as_deref().is_none_or(sound)
        }
        Counter::SlidingWindow(log) => {
            log.runs.iter().all(|run| run.hits > 0) && log.runs.is_sorted_by_key(|run| run.newest)
        }
        Counter::FixedWindow(window) => window.count > 0,
        // A set in Redis, and no string.
        Counter::Concurrency(_) => false,
    }
}

fn bucket(left: &mut &[u8]) -> Option<Counter> {
    let Bucket { full_at, rest, rate, reach } = Bucket::read(left)?;
    let full_at = Timestamp::from_micros(full_at);
    let outstanding = if left.is_empty() {
        None
    } else {
        let Leases { early_until, early, late_until, late } = Leases::read(left)?;
        let early = Slot { until: Timestamp::from_micros(early_until), tokens: early };
        Some(Box::new(Outstanding {
            early,
            late: Slot { until: Timestamp::from_micros(late_until), tokens: late },
        }))
    };
    let (remainder, reach) = (rest, Reach::from_bits(reach));
    Some(Counter::TokenBucket(token_bucket::Bucket {
        full_at,
        remainder,
        rate,
        reach,
        outstanding,
    }))
}

fn sliding(left: &mut &[u8]) -> Option<Counter> {
    let Sliding { newest, newest_hits, total } = Sliding::read(left)?;
    let padding = [(-(2f64.powi(53))).to_le_bytes(), 0f64.to_le_bytes()].concat();
    while let Some(runs) = left.strip_prefix(&padding[..]) {
        *left = runs;
    }
    let mut runs = Vec::new();
    while !left.is_empty() {
        let Run { newest, hits } = Run::read(left)?;
        runs.push(sliding_window::Run { newest: Timestamp::from_micros(newest), hits });
    }
    let newest = Timestamp::from_micros(newest);
    runs.push(sliding_window::Run { newest, hits: newest_hits });
    let sum: u64 = runs.iter().map(|run| run.hits).sum();
    (sum == total).then_some(Counter::SlidingWindow(sliding_window::WindowLog { runs }))
}
