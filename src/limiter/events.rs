//! Events of limits: one is nearly used up, or used up.
//!
//! An event happens once for each counter, limit, threshold and period, on each replica that
//! decides. Periods are counted from 1970 by the length of the limit's period, so that the events
//! of several replicas have the same [id](LimitEvent::id); for a fixed window that is the window.
//! Of several limits of a descriptor it is the one that the answer reports.
//!
//! While nobody listens a decision costs a load. Otherwise a descriptor beyond the lower threshold
//! looks up what was reported, in a table of fixed size. A counter that has lost its place there is
//! reported again.

mod seen;
mod webhook;

use std::fmt::{self, Write as _};
use std::hash::{BuildHasher as _, Hash as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hashbrown::DefaultHashBuilder;
use sha2::{Digest as _, Sha256};
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::broadcast::{Receiver, Sender, channel};

use self::seen::Seen;
pub use self::webhook::WebhookSettings;
use super::key::SensitiveHasher;
use super::redact::{Sensitivity, ShownDescriptor};
use super::request::{Descriptor, Request};
use super::status::{Decision, Limited, Status};
use crate::domain::{Clock, Hits, Timestamp};
use crate::settings::{Ratio, section};
use crate::telemetry::escape::escape;
use crate::telemetry::metrics::EventMetrics;

section! {
    /// Events of limits that are nearly or wholly used up, for `WatchEvents` and the webhook.
    pub struct EventSettings in "events" {
        /// Part of a limit from which on it is nearly used up.
        near_ratio: Ratio = "0.8",
        /// Events that wait for a receiver. One that is slower loses the oldest, which are counted.
        max_queue: usize = "1024" in 1..=100_000,
    }
    with {
        /// The webhook.
        webhook: WebhookSettings,
    }
}

/// The bytes of an event's id.
const ID_BYTES: usize = 16;

/// The part of a limit that is used.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Threshold {
    /// Nearly all of it.
    Near,
    /// All of it, or so much that a request does not fit.
    Reached,
}

impl Threshold {
    /// A short name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Near => "near",
            Self::Reached => "reached",
        }
    }
}

/// A limit whose use has come to a threshold.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LimitEvent {
    /// Equal for the same counter, limit, threshold and period on all replicas; hexadecimal.
    pub id: String,
    /// The time of the decision.
    pub at: Timestamp,
    /// The threshold.
    pub threshold: Threshold,
    /// The domain, escaped.
    pub domain: String,
    /// The descriptor: escaped, with sensitive values hashed.
    pub descriptor: String,
    /// The rule as metrics name it.
    pub rule: String,
    /// The limit as metrics name it.
    pub limit: String,
    /// Hits used, those of the request included.
    pub used: u64,
    /// The most hits that fit.
    pub capacity: u64,
    /// Shadow mode lets requests beyond it pass.
    pub shadow: bool,
}

/// Finds events and hands them to those who listen.
pub struct LimitEvents {
    near_ratio: f32,
    sender: Sender<Arc<LimitEvent>>,
    listeners: Arc<AtomicUsize>,
    seen: Seen,
    hashing: DefaultHashBuilder,
    clock: Box<dyn Clock>,
    metrics: EventMetrics,
}

/// Receives events until it is dropped.
pub struct EventReceiver {
    events: Receiver<Arc<LimitEvent>>,
    listeners: Arc<AtomicUsize>,
}

impl fmt::Debug for LimitEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LimitEvents").field("listeners", &self.listeners).finish_non_exhaustive()
    }
}

impl fmt::Debug for EventReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventReceiver").finish_non_exhaustive()
    }
}

impl Drop for EventReceiver {
    fn drop(&mut self) {
        self.listeners.fetch_sub(1, Ordering::Relaxed);
    }
}

impl EventReceiver {
    /// The next event, or how many were lost before it because this receiver is slow. None: the
    /// process ends.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn next(&mut self) -> Option<Result<Arc<LimitEvent>, u64>> {
        match self.events.recv().await {
            Ok(event) => Some(Ok(event)),
            Err(RecvError::Lagged(lost)) => Some(Err(lost)),
            Err(RecvError::Closed) => None,
        }
    }

    /// The next of the events that wait already, or how many were lost before it. None: none
    /// waits.
    pub fn waiting(&mut self) -> Option<Result<Arc<LimitEvent>, u64>> {
        match self.events.try_recv() {
            Ok(event) => Some(Ok(event)),
            Err(TryRecvError::Lagged(lost)) => Some(Err(lost)),
            Err(TryRecvError::Empty | TryRecvError::Closed) => None,
        }
    }
}

impl LimitEvents {
    /// Events by `settings`, on `clock`.
    pub fn new(settings: &EventSettings, clock: impl Clock, metrics: EventMetrics) -> Self {
        Self {
            near_ratio: settings.near_ratio.get(),
            sender: channel(settings.max_queue).0,
            listeners: Arc::default(),
            seen: Seen::new(),
            hashing: DefaultHashBuilder::default(),
            clock: Box::new(clock),
            metrics,
        }
    }

    /// Listens from now on.
    pub fn listen(&self) -> EventReceiver {
        let events = self.sender.subscribe();
        self.listeners.fetch_add(1, Ordering::Relaxed);
        EventReceiver { events, listeners: Arc::clone(&self.listeners) }
    }

    /// Finds the events of `decision` on `request`.
    pub(super) fn note(&self, hasher: &SensitiveHasher, request: &Request, decision: &Decision) {
        if self.listeners.load(Ordering::Relaxed) == 0 || decision.unavailable.is_some() {
            return;
        }
        for (descriptor, status) in request.descriptors.iter().zip(&decision.statuses) {
            let Some(limited) = status.counted().filter(|_| !status.degraded) else { continue };
            if let Some(threshold) = self.threshold(descriptor.hits, limited) {
                self.come_to(threshold, hasher, request, descriptor, (decision, status, limited));
            }
        }
    }

    fn threshold(&self, hits: Hits, limited: &Limited) -> Option<Threshold> {
        let load = limited.load;
        // A cost that never fits says nothing of what is used.
        if matches!(hits, Hits::Refund(_)) || hits.needed() > load.capacity {
            return None;
        }
        if !limited.passed || load.used >= load.capacity {
            Some(Threshold::Reached)
        } else {
            load.is_near(self.near_ratio).then_some(Threshold::Near)
        }
    }

    /// A limit has come to `threshold`: tells of it, unless it did before in this period.
    fn come_to(
        &self,
        threshold: Threshold,
        hasher: &SensitiveHasher,
        request: &Request,
        descriptor: &Descriptor,
        (decision, status, limited): (&Decision, &Status, &Limited),
    ) {
        let at = self.clock.now();
        let report = &limited.limit;
        let period = report.unit.period(report.unit_multiplier);
        let micros = period.map_or(1, |period| period.as_micros() as u64).max(1);
        let period = at.as_micros() / micros;
        let mut hash = self.hashing.build_hasher();
        (request.domain, report.of, threshold, status.client.is_some()).hash(&mut hash);
        for entry in &descriptor.entries {
            (entry.key, entry.value).hash(&mut hash);
        }
        if !self.seen.is_new(hash.finish(), period) {
            return;
        }
        let domain = decision.snapshot.policies.domain(request.domain).map(AsRef::as_ref);
        let sensitivity = Sensitivity::of(status.rule.as_deref(), domain);
        let shown = ShownDescriptor::new(&descriptor.entries, sensitivity, hasher);
        let rule = status.rule_label().to_owned();
        let (domain, descriptor) = (escape(request.domain).to_string(), shown.to_string());
        let limit = report.label();
        let id = id(&[&domain, &descriptor, &rule, &limit, threshold.name()], period);
        let (used, capacity) = (limited.load.used, limited.load.capacity);
        let shadow = status.shadow;
        self.metrics.happened(threshold.name());
        let event = LimitEvent {
            id,
            at,
            threshold,
            domain,
            descriptor,
            rule,
            limit,
            used,
            capacity,
            shadow,
        };
        // Nobody may listen any more.
        drop(self.sender.send(Arc::new(event)));
    }
}

/// The same for the same parts and period, in every process.
fn id(parts: &[&str], period: u64) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.update(period.to_be_bytes());
    let mut text = String::with_capacity(2 * ID_BYTES);
    for byte in hash.finalize().iter().take(ID_BYTES) {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}
