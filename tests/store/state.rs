//! Reads the states that the script writes, by the layout in its header and by nothing of its code.

use tollgate::domain::lease::{Outstanding, Slot};
use tollgate::domain::limit::{Reach, Span};
use tollgate::domain::{Counter, fixed_window, sliding_window, token_bucket};

/// The counter in `raw`; nothing stored is an empty counter.
pub fn decode(raw: Option<&[u8]>) -> Result<Counter, String> {
    let Some(raw) = raw else { return Ok(Counter::Empty) };
    let fault = || format!("cannot be read: {}", raw.escape_ascii());
    let (version, algorithm, body) = match raw {
        [version, algorithm, body @ ..] => (*version, *algorithm, body),
        _ => return Err(fault()),
    };
    if version != if algorithm == 1 { 2 } else { 1 } {
        return Err(fault());
    }
    match (algorithm, body.len()) {
        (1, 20 | 60) => bucket(body),
        (2, 24..) if body.len() % 16 == 8 => sliding(body),
        (3, 16) => Ok(Counter::FixedWindow(fixed_window::State {
            start: whole(&body[..8])?,
            count: whole(&body[8..])?,
        })),
        _ => Err(fault()),
    }
}

fn bucket(body: &[u8]) -> Result<Counter, String> {
    let small = |at: usize| u32::from_le_bytes(body[at..at + 4].try_into().unwrap());
    let slot = |at: usize| -> Result<_, String> {
        let micros = whole(&body[at + 8..at + 16])?;
        let tokens = Span { micros, remainder: small(at + 16).into() };
        Ok(Slot { until: whole(&body[at..at + 8])?, tokens })
    };
    let outstanding = if body.len() > 20 {
        Some(Box::new(Outstanding { early: slot(20)?, late: slot(40)? }))
    } else {
        None
    };
    let full_at = whole(&body[..8])?;
    let (remainder, rate, reach) = (small(8), small(12), Reach::from_bits(small(16)));
    Ok(Counter::TokenBucket(token_bucket::State { full_at, remainder, rate, reach, outstanding }))
}

fn sliding(body: &[u8]) -> Result<Counter, String> {
    let run = |bytes: &[u8]| -> Result<_, String> {
        Ok(sliding_window::Run { newest: whole(&bytes[..8])?, hits: whole(&bytes[8..16])? })
    };
    let no_run = [(-(2f64.powi(53))).to_le_bytes(), 0f64.to_le_bytes()].concat();
    let older = body[24..].chunks_exact(16).skip_while(|bytes| *bytes == no_run);
    let mut runs = older.map(run).collect::<Result<Vec<_>, _>>()?;
    runs.push(run(body)?);
    let total = whole(&body[16..24])?;
    if runs.iter().map(|run| run.hits).sum::<u64>() != total {
        return Err(format!("total {total} of {runs:?}"));
    }
    Ok(Counter::SlidingWindow(sliding_window::State { runs }))
}

/// A whole number that a double holds exactly.
fn whole(bytes: &[u8]) -> Result<u64, String> {
    let number = f64::from_le_bytes(bytes.try_into().unwrap());
    if number.fract() == 0.0 && (0.0..=2f64.powi(53)).contains(&number) {
        Ok(number as u64)
    } else {
        Err(format!("{number} is not a whole number up to 2^53"))
    }
}
