//! The queue of ended spans, and the task that exports them in batches.
//!
//! The queue is bounded and never waits: a span that finds it full is dropped and counted. So a
//! collector that is slow or away costs spans, and delays no decision. The batch processor of the
//! SDK is not used: it does not count, and its shutdown may deadlock on a runtime of one thread.

use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};

use super::transport::{Failure, Transport};
use crate::telemetry::metrics::SpanMetrics;
use crate::telemetry::sharded::ShardedCounter;

/// The most spans of one export.
const MAX_BATCH: usize = 512;

/// The wait before the second attempt of an export. It doubles with each further one.
const FIRST_WAIT: Duration = Duration::from_millis(250);

/// The longest wait between two attempts.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// The time after which an export that fails is given up, with its spans.
const GIVE_UP: Duration = Duration::from_secs(30);

/// The least time between two warnings.
const WARN_EVERY: Duration = Duration::from_mins(1);

/// Takes ended spans from every thread.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) spans: mpsc::Sender<SpanData>,
    pub(super) dropped: ShardedCounter,
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &opentelemetry::Context) {}

    fn on_end(&self, span: SpanData) {
        if self.spans.try_send(span).is_err() {
            self.dropped.inc();
        }
    }

    /// Does nothing: [`Exporter::run`] flushes when it is stopped.
    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// The task that exports.
#[derive(Debug)]
pub(super) struct Exporter {
    pub(super) spans: mpsc::Receiver<SpanData>,
    pub(super) transport: Transport,
    pub(super) resource: ResourceAttributesWithSchema,
    /// The longest time that a span waits for others.
    pub(super) interval: Duration,
    /// The time for one attempt.
    pub(super) timeout: Duration,
    pub(super) metrics: SpanMetrics,
    pub(super) state: State,
}

/// The work and the failures of an exporter.
#[derive(Debug, Default)]
pub(super) struct State {
    /// The spans of the next export.
    gathered: Vec<SpanData>,
    /// The export under way, and the number of its spans.
    sending: Option<(ExportTraceServiceRequest, u64)>,
    /// The last export failed.
    failing: bool,
    /// The last warning.
    warned: Option<Instant>,
}

impl Exporter {
    /// Exports until `stop`, then what is queued, without further attempts.
    pub(super) async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        loop {
            let export = async {
                if self.state.sending.is_none() {
                    self.gather().await;
                }
                self.send().await;
            };
            tokio::select! {
                () = export => {}
                _ = &mut stop => break,
            }
        }
        self.flush().await;
    }

    /// Gathers the spans of one export.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    async fn gather(&mut self) {
        let gathered = &mut self.state.gathered;
        if gathered.is_empty() {
            self.spans.recv_many(gathered, MAX_BATCH).await;
        }
        let fill = async {
            while gathered.len() < MAX_BATCH {
                let room = MAX_BATCH - gathered.len();
                if self.spans.recv_many(gathered, room).await == 0 {
                    return;
                }
            }
        };
        // A batch that is not full goes after the interval.
        let _ = timeout(self.interval, fill).await;
        self.begin();
    }

    /// Makes an export of what was gathered.
    fn begin(&mut self) {
        let spans = std::mem::take(&mut self.state.gathered);
        let count = spans.len() as u64;
        let resource_spans = group_spans_by_resource_and_scope(spans, &self.resource);
        self.state.sending = Some((ExportTraceServiceRequest { resource_spans }, count));
    }

    /// Sends the export under way, until it has arrived or is given up.
    async fn send(&mut self) {
        let begun = Instant::now();
        let mut wait = FIRST_WAIT;
        while let Err(failure) = self.attempt().await {
            if !failure.retry || begun.elapsed() + wait > GIVE_UP {
                self.give_up();
                return;
            }
            sleep(wait).await;
            wait = (wait * 2).min(MAX_WAIT);
        }
    }

    async fn attempt(&mut self) -> Result<(), Failure> {
        let Some((request, count)) = &self.state.sending else { return Ok(()) };
        let (attempt, count) = (timeout(self.timeout, self.transport.export(request)), *count);
        let answer = attempt.await.unwrap_or_else(|_| {
            Err(Failure { reason: format!("no answer in {:?}", self.timeout), retry: true })
        });
        match answer {
            Ok(rejected) => {
                let rejected = rejected.min(count);
                self.metrics.exported.inc_by(count - rejected);
                self.metrics.dropped.inc_by(rejected);
                self.state.sending = None;
                self.succeeded();
                Ok(())
            }
            Err(failure) => {
                self.failed(&failure.reason);
                Err(failure)
            }
        }
    }

    /// Drops the export under way.
    fn give_up(&mut self) {
        if let Some((_, count)) = self.state.sending.take() {
            self.metrics.dropped.inc_by(count);
        }
    }

    /// Exports everything that is queued, with one attempt for each batch, up to the first failure.
    async fn flush(&mut self) {
        // An attempt that the stop has interrupted may have arrived: better twice than never.
        let mut sound = self.state.sending.is_none() || self.attempt().await.is_ok();
        self.give_up();
        loop {
            while self.state.gathered.len() < MAX_BATCH
                && let Ok(span) = self.spans.try_recv()
            {
                self.state.gathered.push(span);
            }
            if self.state.gathered.is_empty() {
                return;
            }
            self.begin();
            sound = sound && self.attempt().await.is_ok();
            self.give_up();
        }
    }

    /// Warns of the first failure of an outage, but not every second of a collector that comes and
    /// goes.
    fn failed(&mut self, reason: &str) {
        let State { failing, warned, .. } = &mut self.state;
        let due = warned.is_none_or(|warned| warned.elapsed() >= WARN_EVERY);
        if !*failing && due {
            *warned = Some(Instant::now());
            tracing::warn!(
                reason,
                "spans do not reach the collector of traces.endpoint; decisions go on, and spans \
                 that find the queue full are dropped"
            );
        }
        *failing = true;
    }

    fn succeeded(&mut self) {
        if std::mem::take(&mut self.state.failing) {
            let dropped = self.metrics.dropped.get();
            tracing::info!(dropped, "spans reach the collector again");
        }
    }
}
