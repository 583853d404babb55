//! Warnings about domains that requests name and no policy or client does: usually a typing error.
//! Such requests pass.
//!
//! Bounded: once an hour for a domain, and for at most [`MAX_DOMAINS`] different domains within an
//! hour. A request of a domain that was warned of, or is one too many, writes nothing that cores
//! share.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::policy::PolicySet;
use crate::telemetry::escape::escape;

const MAX_DOMAINS: usize = 100;
const AGAIN_AFTER: Duration = Duration::from_hours(1);

/// Longer domains are not compared with those of the policies, and not shown in full.
const MAX_SHOWN_BYTES: usize = 64;

/// The domains that were warned of.
#[derive(Debug)]
pub(super) struct UnknownDomains {
    start: Instant,
    /// The second after `start` in which each was warned of last. Copied when a domain is new.
    warned: ArcSwap<HashMap<Box<[u8]>, Arc<AtomicU64>>>,
    /// Held while a domain is added.
    adding: Mutex<()>,
}

impl UnknownDomains {
    pub(super) fn new() -> Self {
        Self { start: Instant::now(), warned: ArcSwap::default(), adding: Mutex::default() }
    }

    /// Warns of `domain`, if it is time, and names the domain of `policies` that is nearest.
    pub(super) fn warn(&self, domain: &[u8], policies: &PolicySet) {
        if !self.is_due(domain) {
            return;
        }
        let shown = domain.get(..MAX_SHOWN_BYTES).unwrap_or(domain);
        let hint = nearest(domain, policies)
            .map_or_else(String::new, |nearest| format!("; did you mean {nearest:?}?"));
        tracing::warn!(
            domain = %escape(shown),
            "no policy and no client names this domain: its requests pass{hint}",
        );
    }

    fn is_due(&self, domain: &[u8]) -> bool {
        let now = self.start.elapsed().as_secs();
        let is_old = |warned: u64| now.saturating_sub(warned) >= AGAIN_AFTER.as_secs();
        let known = self.warned.load();
        if let Some(at) = known.get(domain) {
            let last = at.load(Ordering::Relaxed);
            let claim = || at.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed);
            return is_old(last) && claim().is_ok();
        }
        let has_room = |known: &HashMap<Box<[u8]>, Arc<AtomicU64>>| {
            known.len() < MAX_DOMAINS || known.values().any(|at| is_old(at.load(Ordering::Relaxed)))
        };
        if !has_room(&known) {
            return false;
        }
        let _adding = self.adding.lock();
        let mut known = HashMap::clone(&self.warned.load());
        known.retain(|_, at| !is_old(at.load(Ordering::Relaxed)));
        let is_new = known.len() < MAX_DOMAINS && !known.contains_key(domain);
        if is_new {
            known.insert(domain.into(), Arc::new(AtomicU64::new(now)));
            self.warned.store(Arc::new(known));
        }
        is_new
    }
}

/// The domain that the fewest slips of the pen turn into `domain`, if few are enough.
fn nearest(domain: &[u8], policies: &PolicySet) -> Option<String> {
    let domain = std::str::from_utf8(domain).ok().filter(|d| d.len() <= MAX_SHOWN_BYTES)?;
    let slips = |known: &str| strsim::osa_distance(domain, known);
    let most = |known: &str| (known.len() / 3).max(1);
    let known = policies.domains().into_iter().map(|known| known.name());
    let close = known.filter(|known| known.len().abs_diff(domain.len()) <= most(known));
    let (slips, best) = close.map(|known| (slips(known), known)).min()?;
    (slips <= most(best)).then(|| best.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn warnings_are_bounded_by_domain_and_hour() {
        let unknown = UnknownDomains::new();
        assert!(unknown.is_due(b"edgee") && !unknown.is_due(b"edgee"));
        let others = (0..1_000_u32).filter(|i| unknown.is_due(&i.to_be_bytes())).count();
        assert_eq!(others, MAX_DOMAINS - 1);
        tokio::time::advance(AGAIN_AFTER).await;
        assert!(unknown.is_due(b"edgee") && !unknown.is_due(b"edgee"));
        assert!(unknown.is_due(b"another"), "those of an hour ago make room");
    }
}
