//! `WatchEvents`: a stream of the events of this replica.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream::unfold;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::convert;
use super::service::Admin;
use crate::control::registry::Registry;
use crate::edge::pb::tollgate::v1 as pb;
use crate::edge::pb::tollgate::v1::watch_events_response::{Event, Threshold};
use crate::limiter::events::{EventReceiver, LimitEvent, Threshold as Reached};
use crate::store::LimitStore;
use crate::telemetry::metrics::EventMetrics;

/// The interval of signs of life.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// The stream of a call.
pub(super) type Watched =
    Pin<Box<dyn Stream<Item = Result<pb::WatchEventsResponse, Status>> + Send>>;

/// One call.
struct Watch {
    metrics: EventMetrics,
    events: EventReceiver,
    domain: String,
    stop: CancellationToken,
    dropped: u64,
}

/// Begins a stream. It ends when the process does.
pub(super) fn watch<R: Registry, S: LimitStore>(
    admin: &Admin<R, S>,
    request: pb::WatchEventsRequest,
) -> Watched {
    let shared = admin.shared();
    let (metrics, events) = (shared.metrics.events.clone(), shared.events.listen());
    let stop = admin.stop.clone();
    let watch = Watch { metrics, events, domain: request.domain, stop, dropped: 0 };
    Box::pin(unfold(watch, |mut watch| async move {
        let response = watch.next().await?;
        Some((Ok(response), watch))
    }))
}

impl Watch {
    async fn next(&mut self) -> Option<pb::WatchEventsResponse> {
        let stop = self.stop.clone();
        let event = stop.run_until_cancelled(timeout(HEARTBEAT, self.event())).await?;
        let event = match event {
            Ok(Some(event)) => Some(shown(&event)),
            Ok(None) => return None,
            Err(_) => None,
        };
        Some(pb::WatchEventsResponse { event, dropped: std::mem::take(&mut self.dropped) })
    }

    /// The next event of the domain.
    async fn event(&mut self) -> Option<Arc<LimitEvent>> {
        loop {
            match self.events.next().await? {
                Ok(event) if self.domain.is_empty() || event.domain == self.domain => {
                    return Some(event);
                }
                Ok(_) => {}
                Err(lost) => {
                    self.dropped += lost;
                    self.metrics.dropped("watch", lost);
                }
            }
        }
    }
}

fn shown(event: &LimitEvent) -> Event {
    let threshold = match event.threshold {
        Reached::Near => Threshold::Near,
        Reached::Reached => Threshold::Reached,
    };
    Event {
        id: event.id.clone(),
        at: Some(convert::timestamp(event.at)),
        threshold: threshold.into(),
        domain: event.domain.clone(),
        descriptor: event.descriptor.clone(),
        rule: event.rule.clone(),
        limit: event.limit.clone(),
        used: event.used,
        capacity: event.capacity,
        shadow: event.shadow,
    }
}
