//! Statistics to a statsd server, under the names of envoyproxy/ratelimit.
//!
//! Counters are sent as what was added since the last interval, so decisions know nothing of
//! statsd. A line that does not reach the server is lost, as with any statsd; metrics and log say
//! so.

mod deltas;
mod send;
mod settings;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use self::deltas::Deltas;
use self::send::Sender;
pub use self::settings::{Flavor, Protocol, StatsdSettings, Tags};
use self::wire::Wire;
use super::metrics::Metrics;
use crate::settings::HostPort;

/// The longest that the last lines may take when the process stops.
const MAX_LAST: Duration = Duration::from_secs(1);

/// Sends the statistics of `metrics` to `address` at each interval until `stop`, and once more
/// then.
pub async fn run(
    settings: &StatsdSettings,
    address: HostPort,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) {
    let Some(reference) = metrics.reference() else { return };
    let mut deltas = Deltas::new(Wire::new(settings));
    let mut sender = Sender::new(settings, address);
    let mut ticks = interval(settings.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick is at once.
    ticks.tick().await;
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let lines = deltas.lines(reference);
        let lost = sender.send(&lines).await;
        metrics.statsd_lines_dropped.inc_by(lost);
    }
    let lines = deltas.lines(reference);
    if timeout(MAX_LAST, sender.send(&lines)).await.is_err() {
        tracing::warn!(lines = lines.len(), "the last statistics did not reach the statsd server");
    }
}
