//! One sampled call: its span, and that of its store call.

use std::time::SystemTime;

use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanKind, Status, TraceContextExt as _, Tracer as _,
};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_sdk::trace::{SdkTracer, Span};
use tokio::time::Instant;

/// The name of the spans of store calls.
const STORE_CALL: &str = "store decide";

/// A sampled call. Its span ends when it is dropped.
#[derive(Debug)]
pub struct Trace {
    tracer: SdkTracer,
    span: Span,
    store: &'static str,
    /// The same moment on both clocks.
    started: (Instant, SystemTime),
}

/// One call of a store, as a span has it.
#[derive(Clone, Copy, Debug)]
pub struct StoreCall {
    /// The time at which it was sent.
    pub sent: Instant,
    /// The time of the answer.
    pub answered: Instant,
    /// The kind of its failure.
    pub failure: Option<&'static str>,
}

impl Trace {
    /// The span of a call that is served, with the caller's span in `context`.
    pub(super) fn serve(
        tracer: &SdkTracer,
        name: &'static str,
        context: &Context,
        store: &'static str,
    ) -> Self {
        Self::new(tracer, name, SpanKind::Server, context, store)
    }

    /// The span of work that no call asked for.
    pub(super) fn work(tracer: &SdkTracer, name: &'static str, store: &'static str) -> Self {
        Self::new(tracer, name, SpanKind::Internal, &Context::new(), store)
    }

    fn new(
        tracer: &SdkTracer,
        name: &'static str,
        kind: SpanKind,
        context: &Context,
        store: &'static str,
    ) -> Self {
        #[expect(clippy::disallowed_methods, reason = "spans have the clock of their collector")]
        let started = (Instant::now(), SystemTime::now());
        let builder = SpanBuilder::from_name(name).with_kind(kind).with_start_time(started.1);
        let span = tracer.build_with_context(builder, context);
        Self { tracer: tracer.clone(), span, store, started }
    }

    /// Adds an attribute.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        self.span.set_attribute(KeyValue::new(key, value));
    }

    /// Marks the span as that of a call that failed for `reason`.
    pub fn fail(&mut self, reason: &'static str) {
        self.span.set_status(Status::error(reason));
    }

    /// Adds the span of a store call, as a child.
    pub fn store_call(&self, call: &StoreCall) {
        let parent = self.span.span_context().clone();
        let context = Context::new().with_remote_span_context(parent);
        let builder = SpanBuilder::from_name(STORE_CALL)
            .with_kind(SpanKind::Client)
            .with_start_time(self.wall(call.sent))
            .with_attributes([KeyValue::new("tollgate.store", self.store)]);
        let mut span = self.tracer.build_with_context(builder, &context);
        if let Some(kind) = call.failure {
            span.set_attribute(KeyValue::new("error.type", kind));
            span.set_status(Status::error(kind));
        }
        span.end_with_timestamp(self.wall(call.answered));
    }

    /// The time of day at `instant`, which is no earlier than the start.
    fn wall(&self, instant: Instant) -> SystemTime {
        let (started, at) = self.started;
        at + instant.saturating_duration_since(started)
    }
}
