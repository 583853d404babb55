//! The result of a check.

use super::worst::Worst;

/// The result of holding a trace against a promise.
#[derive(Clone, Copy, Debug)]
pub struct Finding {
    /// The calls that were admitted.
    pub admitted: usize,
    /// The calls that were refused.
    pub refused: usize,
    /// The interval with the largest excess; none if no hits are certain in any.
    pub worst: Option<Worst>,
    /// The refusals of hits that the limit allowed at every moment of their calls. None where
    /// denied hits are charged.
    pub needless: Option<usize>,
    /// The hits that were admitted.
    pub hits: u64,
    /// The hits that an exact limiter admits of the same calls. None where hits were given back, or
    /// charged without being admitted.
    pub exact_hits: Option<u64>,
}

impl Finding {
    /// True if no interval breaks the promise.
    pub fn holds(&self) -> bool {
        !self.worst.is_some_and(|worst| worst.is_excess())
    }

    /// The hits admitted, divided by those that an exact limiter admits of the same calls.
    pub fn efficiency(&self) -> Option<f64> {
        let exact = self.exact_hits.filter(|hits| *hits > 0)?;
        Some(self.hits as f64 / exact as f64)
    }
}
