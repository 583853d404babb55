//! Spans of decisions, store calls and reloads, exported to an OTLP collector.
//!
//! ```text
//!  headers -> parent -> Traces::begin -> Trace -> queue -> exporter (control runtime) -> collector
//! ```
//! * `parent`: the caller's span. `Trace`: the span of one call, and its children.
//! * `export`: queue, batches, attempts. `transport`: gRPC and HTTP.
//!
//! Spans are made by the SDK alone. They are not `tracing` spans, so the connections of the
//! exporter make none.

mod export;
mod parent;
pub mod settings;
mod trace;
mod transport;

use std::time::Duration;

use http::HeaderMap;
use opentelemetry::trace::{TraceContextExt as _, TracerProvider as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{RandomIdGenerator, Sampler, SdkTracer, SdkTracerProvider};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use self::export::{Exporter, Queue, State};
use self::parent::Parent;
use self::settings::TraceSettings;
pub use self::trace::{StoreCall, Trace};
use self::transport::Transport;
use crate::settings::Pairs;
use crate::telemetry::metrics::SpanMetrics;
use crate::tls::TlsFault;

/// The time for the last spans when tollgate stops.
const FLUSH: Duration = Duration::from_secs(5);

/// Makes the spans of the process.
#[derive(Debug)]
pub struct Traces {
    tracer: SdkTracer,
    parent_based: bool,
    ratio: f64,
    /// The name of the store, in the spans of its calls.
    store: &'static str,
    exporter: Mutex<Option<(oneshot::Sender<()>, JoinHandle<()>)>>,
}

impl Traces {
    /// Starts to export by `settings`, on the runtime that calls this; none without an endpoint.
    /// `store` is the name of the store.
    ///
    /// # Errors
    /// Fails if the files of TLS cannot be used.
    pub fn start(
        settings: &TraceSettings,
        store: &'static str,
        metrics: SpanMetrics,
    ) -> Result<Option<Self>, TlsFault> {
        let Some(transport) = Transport::new(settings)? else { return Ok(None) };
        let resource = resource(settings);
        let (sender, spans) = mpsc::channel(settings.max_queue);
        let queue = Queue { spans: sender, dropped: metrics.dropped.clone() };
        let exporter = Exporter {
            spans,
            transport,
            resource: (&resource).into(),
            interval: settings.interval,
            timeout: settings.timeout,
            metrics,
            state: State::default(),
        };
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(exporter.run(stopped));
        // The decision is made before a span is.
        let provider = SdkTracerProvider::builder()
            .with_span_processor(queue)
            .with_sampler(Sampler::AlwaysOn)
            .with_id_generator(RandomIdGenerator::default())
            .with_resource(resource)
            .build();
        Ok(Some(Self {
            tracer: provider.tracer("tollgate"),
            parent_based: settings.parent_based,
            ratio: f64::from(settings.ratio.get()),
            store,
            exporter: Mutex::new(Some((stop, task))),
        }))
    }

    /// The span of a call with `headers`, which serves the RPC or path `name`; none if it is not
    /// sampled.
    pub fn begin(&self, name: &'static str, headers: &HeaderMap) -> Option<Box<Trace>> {
        let parent = Parent::of(headers);
        if !self.samples(parent.as_ref()) {
            return None;
        }
        let context = parent.map_or_else(Context::new, |parent| {
            Context::new().with_remote_span_context(parent.context(headers))
        });
        Some(Box::new(Trace::serve(&self.tracer, name, &context, self.store)))
    }

    /// The span of work that no call asked for. It is sampled always, because such work is rare.
    pub fn begin_internal(&self, name: &'static str) -> Trace {
        Trace::work(&self.tracer, name, self.store)
    }

    fn samples(&self, parent: Option<&Parent>) -> bool {
        match parent {
            Some(parent) if self.parent_based => parent.sampled,
            // By the last bits of its id, so that each service decides the same of a trace.
            Some(parent) => {
                let random = u128::from_be_bytes(parent.trace.to_bytes()) as u64 >> 1;
                (random as f64) < self.ratio * (1_u64 << 63) as f64
            }
            None => fastrand::f64() < self.ratio,
        }
    }

    /// Exports the spans that are queued, and then no more. Takes at most `FLUSH`.
    pub async fn flush(&self) {
        let Some((stop, task)) = self.exporter.lock().take() else { return };
        // The task ends with its runtime alone before this.
        let _ = stop.send(());
        if tokio::time::timeout(FLUSH, task).await.is_err() {
            tracing::warn!("the last spans did not reach the collector in {FLUSH:?}");
        }
    }
}

/// The attributes of this service. No variables of the environment are read.
fn resource(settings: &TraceSettings) -> Resource {
    let own = [
        KeyValue::new("service.name", settings.service_name.clone()),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
    ];
    let Pairs(more) = settings.resource.clone().unwrap_or_default();
    let more = more.into_iter().map(|(name, value)| KeyValue::new(name, value));
    Resource::builder_empty().with_attributes(own.into_iter().chain(more)).build()
}
