//! The handle of what an admitted request was charged on limits that hold.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::Holds;
use super::handle::{Handle, HeldClaim};
use super::settle::Settlements;
use crate::domain::{Commit, HoldId, Limit, Timestamp};
use crate::limiter::ask::{Ask, Source, Unnamed};
use crate::policy::HoldTerms;
use crate::store::LimitStore;
use crate::telemetry::metrics::HoldState;

/// A hold that was issued.
pub struct Issued {
    /// The text of its handle.
    pub handle: String,
    /// The time after which it ends by itself.
    pub ttl: Duration,
    unheard: Mutex<Option<Unheard>>,
}

/// Settles a hold whose request never got an answer.
pub(in crate::limiter) type Unheard = Box<dyn FnOnce() + Send>;

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").field("handle", &self.handle).finish_non_exhaustive()
    }
}

impl Issued {
    /// The answer with the handle has been handed on: the caller settles it.
    pub fn heard(&self) {
        *self.unheard.lock() = None;
    }
}

impl Drop for Issued {
    /// Nobody will settle it.
    fn drop(&mut self) {
        if let Some(settle) = self.unheard.get_mut().take() {
            settle();
        }
    }
}

/// The life of a handle that holds nothing, and lets a request report how it has fared.
const LONGEST_REPORT: Duration = Duration::from_mins(10);

/// The time after which a hold on `limit` ends by itself.
pub(in crate::limiter) fn ttl(limit: &Limit, terms: Option<&HoldTerms>) -> Duration {
    match terms {
        Some(terms) => terms.ttl,
        None => limit.period(),
    }
}

/// The hold of a decided request; `None` if it charged nothing on limits that hold.
pub(in crate::limiter) fn issue<S: LimitStore>(
    holds: &Arc<Holds>,
    domain: &[u8],
    ask: &Ask,
    id: HoldId,
    settlements: &Arc<Settlements<S>>,
) -> Option<Arc<Issued>> {
    let charged = ask.group().charged(Commit::Together, |i| ask.passed(i));
    let (key, mut claims) = (holds.signing(), Vec::new());
    let (mut first, mut longest) = (None::<Timestamp>, Duration::ZERO);
    let mut settled = Vec::new();
    for held in ask.held() {
        let Some((claim, asked)) = ask.claim(held.claim) else { continue };
        let ruling = asked.ruling();
        let counted = matches!(ruling.source, Source::Store | Source::Share { .. });
        let (Some(true), Some(hits)) = (charged.get(held.claim), claim.hits.charged()) else {
            continue;
        };
        if !counted {
            continue;
        }
        let (at, degraded) = (ruling.reading.at, ruling.degraded());
        first = Some(first.map_or(at, |first| first.min(at)));
        longest = longest.max(ttl(&claim.limit, held.terms.as_ref()));
        let (counter, position) = (key.counter(&claim.key), held.claim as u8);
        claims.push(HeldClaim { counter, degraded, hits, at, position });
        settled.push((claim.key.clone(), claim.limit, held.terms));
    }
    let is_charged = |hold: &&Unnamed| charged.get(hold.slot) == Some(&true);
    let unnamed = ask.unnamed().iter().filter(is_charged).count();
    holds.metrics.add(HoldState::Reserved, unnamed as u64);
    let reports = ask.rules().to_vec();
    let at = match first {
        Some(at) => at,
        None if reports.is_empty() => return None,
        None => {
            longest = LONGEST_REPORT;
            settlements.shares.now()
        }
    };
    let process = holds.process;
    let handle = Handle { id, at, ttl: longest, renewals: 0, process, claims, reports };
    holds.metrics.add(HoldState::Reserved, handle.claims.len() as u64);
    let text = key.write(domain, &handle);
    let settlements = Arc::clone(settlements);
    let unheard: Unheard = Box::new(move || settlements.unheard(&handle, &settled));
    Some(Arc::new(Issued { handle: text, ttl: longest, unheard: Mutex::new(Some(unheard)) }))
}
