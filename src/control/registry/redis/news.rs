//! Notices that there may be something new: a subscription that comes back after it is lost.
//!
//! Notices get lost, which costs a reader nothing but the time until it looks anyway.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::watch;

use crate::redis::Connector;
use crate::redis::backoff::Backoff;

/// After how long without a notice the subscription is made anew: a connection may be dead without
/// a sign.
const SILENCE: Duration = Duration::from_mins(1);

/// Passes every notice on to `news`, until it has no receiver. A new subscription counts as one,
/// for those that were missed.
pub(super) async fn listen(connector: Connector, channel: String, news: watch::Sender<()>) {
    tokio::select! {
        () = news.closed() => {}
        () = subscribe(&connector, &channel, &news) => {}
    }
}

async fn subscribe(connector: &Connector, channel: &str, news: &watch::Sender<()>) {
    let mut backoff = Backoff::new();
    let mut reported = BTreeSet::new();
    loop {
        match connector.subscribe(channel).await {
            Ok(connection) => {
                reported.clear();
                news.send_replace(());
                let mut notices = connection.into_on_message();
                while let Ok(Some(_)) = tokio::time::timeout(SILENCE, notices.next()).await {
                    backoff.reset();
                    news.send_replace(());
                }
            }
            Err(reason) => {
                if reported.insert(reason.clone()) {
                    tracing::warn!(
                        redis = %connector, reason,
                        "no notices of changes from Redis: they are looked for instead"
                    );
                }
            }
        }
        tokio::time::sleep(backoff.wait()).await;
    }
}
