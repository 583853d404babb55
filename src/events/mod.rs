//! The delivery of events to a webhook: `CloudEvents` 1.0 in JSON batches, by POST.
//!
//! Events are taken from a bounded queue, so a receiver that is slow or away costs events and
//! delays no decision. A batch is sent again until it has arrived, for 30 seconds at most, so a
//! receiver may get an event twice; its id is the same then, and on other replicas.
//!
//! Source: `CloudEvents` 1.0, "JSON Event Format" and "HTTP Protocol Binding" (batched content
//! mode).

mod cloud;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use self::cloud::batch;
use crate::limiter::events::{EventReceiver, LimitEvent, WebhookSettings};
use crate::outward::{Dialer, Endpoint, Post};
use crate::settings::Headers;
use crate::telemetry::metrics::EventMetrics;
use crate::tls::{Paths, PemPath, TlsFault};

/// The most events of a request.
const MAX_BATCH: usize = 100;

/// The wait before the second attempt. It doubles with each further one.
const FIRST_WAIT: Duration = Duration::from_millis(200);

/// The longest wait between two attempts.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// The time after which a batch is given up.
const GIVE_UP: Duration = Duration::from_secs(30);

/// The least time between two warnings.
const WARN_EVERY: Duration = Duration::from_mins(1);

/// An event, or how many were lost.
type Received = Result<Arc<LimitEvent>, u64>;

/// Sends events to a webhook.
#[derive(Debug)]
pub struct Webhook {
    post: Post,
    endpoint: Endpoint,
    /// The source in events: the name of this process.
    source: String,
    timeout: Duration,
    metrics: EventMetrics,
    /// The last attempt failed.
    failing: bool,
    warned: Option<Instant>,
}

impl Webhook {
    /// The webhook of `settings`, if there is one. `source` names this process in events.
    ///
    /// # Errors
    /// Fails if the files of TLS cannot be used.
    pub fn new(
        settings: &WebhookSettings,
        source: String,
        metrics: EventMetrics,
    ) -> Result<Option<Self>, TlsFault> {
        let Some(endpoint) = settings.endpoint.clone() else { return Ok(None) };
        let file = |setting, path| PemPath { setting, path };
        let paths = Paths {
            ca: file("events.webhook.ca_file", settings.ca_file.clone()),
            cert: file("events.webhook.cert_file", None),
            key: file("events.webhook.key_file", None),
        };
        let dialer = Dialer::new(&endpoint, paths, b"http/1.1", settings.timeout)?;
        let headers = settings.headers.as_ref().map(Headers::to_map).unwrap_or_default();
        let kind = ("application/cloudevents-batch+json; charset=utf-8", "/");
        let post = Post::new(&endpoint, dialer, headers, kind);
        let timeout = settings.timeout;
        Ok(Some(Self { post, endpoint, source, timeout, metrics, failing: false, warned: None }))
    }

    /// Sends what `events` receives until `stop`, then what waits, once.
    pub async fn run(mut self, mut events: EventReceiver, stop: CancellationToken) {
        while let Some(Some(next)) = stop.run_until_cancelled(events.next()).await {
            let gathered = self.gather(Some(next), &mut events);
            self.deliver(&gathered, &stop).await;
        }
        let left = self.gather(None, &mut events);
        self.deliver(&left, &stop).await;
    }

    /// A batch: `next`, and the events that wait. Counts those that were lost.
    fn gather(&self, next: Option<Received>, events: &mut EventReceiver) -> Vec<Arc<LimitEvent>> {
        let mut gathered = Vec::new();
        let mut received = next.or_else(|| events.waiting());
        while let Some(next) = received {
            match next {
                Ok(event) => gathered.push(event),
                Err(lost) => self.metrics.dropped("webhook", lost),
            }
            received = if gathered.len() < MAX_BATCH { events.waiting() } else { None };
        }
        gathered
    }

    /// Sends a batch until it has arrived, is given up, or the process stops.
    async fn deliver(&mut self, events: &[Arc<LimitEvent>], stop: &CancellationToken) {
        if events.is_empty() {
            return;
        }
        let (body, begun) = (Bytes::from(batch(&self.source, events)), Instant::now());
        let mut wait = FIRST_WAIT;
        while let Err((reason, retry)) = self.attempt(body.clone()).await {
            self.metrics.delivered("failed");
            self.warn(&reason);
            let over = !retry || begun.elapsed() + wait > GIVE_UP;
            if over || stop.run_until_cancelled(sleep(wait)).await.is_none() {
                self.metrics.dropped("webhook", events.len() as u64);
                return;
            }
            wait = (wait * 2).min(MAX_WAIT);
        }
        self.metrics.delivered("ok");
        if std::mem::take(&mut self.failing) {
            tracing::info!(webhook = %self.endpoint, "the webhook takes events again");
        }
    }

    /// One attempt; its failure, and whether another one makes sense.
    async fn attempt(&mut self, body: Bytes) -> Result<(), (String, bool)> {
        let answer = timeout(self.timeout, self.post.send(body)).await;
        let (status, _) = match answer {
            Ok(sent) => sent.map_err(|reason| (reason, true))?,
            Err(_) => return Err((format!("no answer in {:?}", self.timeout), true)),
        };
        if status.is_success() {
            return Ok(());
        }
        let later = status.is_server_error() || status.as_u16() == 429 || status.as_u16() == 408;
        Err((format!("HTTP status {status}"), later))
    }

    fn warn(&mut self, reason: &str) {
        self.failing = true;
        let now = Instant::now();
        if self.warned.is_some_and(|at| now.duration_since(at) < WARN_EVERY) {
            return;
        }
        self.warned = Some(now);
        tracing::warn!(
            webhook = %self.endpoint,
            reason,
            "events do not reach the webhook; they are sent again for 30 s, then dropped"
        );
    }
}
