//! The feed of a control plane: policies over xDS, state of the world, on an aggregated stream.
//!
//! ```text
//!  control plane <-- stream --> Subscription -- Offer --> XdsFeed --> drive --> writer
//!                     ACK, NACK      ^---------- outcome ----'
//! ```
//! Source: the protocol of Envoy's control planes and `RateLimitConfig` of go-control-plane, as
//! envoyproxy/ratelimit speaks them. What it does not define, such as how long a removal waits, is
//! said where it is decided.
//!
//! * `subscription`: keeps a stream open, and answers its responses; `offer`: what it hands on.
//! * `connect`: a connection; `backoff`: waits between attempts.
//! * `requests`: the messages to the control plane. `acks`: the answers to responses.
//! * `grace`: the time in which no domain is removed. `kept`: the last good response in Redis.
//! * `resources`, `tree`, `metadata`: messages to policies. `pb`: the generated messages.
//! * [`settings`]: the section `xds`.

mod acks;
mod backoff;
mod connect;
mod grace;
mod kept;
mod metadata;
mod offer;
#[expect(missing_docs, clippy::all, clippy::pedantic, reason = "generated")]
#[allow(
    missing_debug_implementations,
    unused_qualifications,
    clippy::large_futures,
    reason = "generated"
)]
pub mod pb;
mod requests;
mod resources;
pub mod settings;
mod subscription;
mod tree;

use std::future::pending;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

pub use self::kept::Kept;
pub use self::offer::FirstResponse;
use self::offer::Offer;
use self::settings::XdsSettings;
pub use self::subscription::Subscription;
use super::Feed;
use crate::control::layered::{Origin, Refusal};
use crate::policy::Files;
use crate::telemetry::metrics::Metrics;

/// The longest reason of a NACK, in bytes.
const MAX_REASON_BYTES: usize = 4_096;

/// The policies of a control plane.
#[derive(Debug)]
pub struct XdsFeed {
    offers: mpsc::Receiver<Offer>,
    /// Waits for the outcome of the last offer.
    outcome: Option<oneshot::Sender<Result<(), String>>>,
}

/// The feed of the control plane of `settings`, and the task that serves it; none: there is no
/// control plane. With `merge_domains` several resources may be of one domain. Good responses are
/// kept in `kept`, if there is one.
pub fn feed(
    settings: &XdsSettings,
    merge_domains: bool,
    metrics: &Arc<Metrics>,
    kept: Option<Kept>,
) -> Option<(XdsFeed, Subscription)> {
    let server = settings.server.clone()?;
    let (sender, offers) = mpsc::channel(1);
    let subscription =
        Subscription::new(server, settings.clone(), merge_domains, sender, Arc::clone(metrics));
    let subscription = subscription.keeping(kept);
    Some((XdsFeed { offers, outcome: None }, subscription))
}

impl Feed for XdsFeed {
    const ORIGIN: Origin = Origin::Xds;

    async fn next(&mut self) -> Files {
        match self.offers.recv().await {
            Some(Offer { files, outcome }) => {
                self.outcome = Some(outcome);
                files
            }
            // The subscription ends with the process.
            None => pending().await,
        }
    }

    fn settled(&mut self, outcome: &Result<(), Refusal>) {
        if let Some(waiting) = self.outcome.take() {
            // It waits no longer where the process ends.
            let _ = waiting.send(outcome.as_ref().map_err(reason).map(|&()| ()));
        }
    }
}

/// The reason for the control plane: `RESOURCE: FAULT` per line.
fn reason(refusal: &Refusal) -> String {
    let Refusal::Faults(faults) = refusal else { return refusal.to_string() };
    let mut text = String::new();
    let mut left = faults.faults().len();
    for fault in faults.faults() {
        let line = format!("{}: {}", fault.place, fault.message);
        if !text.is_empty() && text.len() + line.len() >= MAX_REASON_BYTES {
            return format!("{text}\nand {left} more");
        }
        if !text.is_empty() {
            text.push('\n');
        }
        text.extend(line.chars().take(MAX_REASON_BYTES));
        left -= 1;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Options;

    #[test]
    fn reason_has_a_line_per_fault_and_is_bounded() {
        let refused = |count: usize| {
            let mut files = Files::default();
            (0..count).for_each(|i| files.refuse(&format!("r{i}"), "is bad".to_owned()));
            Refusal::Faults(files.compile(&Options::default()).unwrap_err())
        };
        assert_eq!(reason(&refused(2)), "r0: is bad\nr1: is bad");
        let long = reason(&refused(1_000));
        assert!(long.len() < MAX_REASON_BYTES + 20 && long.contains("\nand "), "{}", long.len());
    }
}
