//! The notices of a failover, from one sentinel at a time.
//!
//! A notice is a reason to ask again, no answer. Notices get lost, which costs no more than the
//! time until the next question.

use std::time::Duration;

use futures_util::StreamExt as _;
use redis::aio::PubSub;
use tokio::sync::Notify;

use super::access::Access;
use crate::redis::address::Address;
use crate::redis::multiplex::reason;

/// Published by a sentinel when the primary has moved.
const SWITCHED: &str = "+switch-master";

/// The time without a notice after which the next sentinel is listened to: a connection may be
/// dead without a sign.
const SILENCE: Duration = Duration::from_mins(1);

/// The wait after a sentinel that cannot be listened to.
const PAUSE: Duration = Duration::from_secs(1);

/// Listens to one of `nodes` after the other. Notifies `wanted` of each notice.
pub(super) async fn listen(nodes: &[Address], access: &Access, wanted: &Notify) {
    for address in nodes.iter().cycle() {
        let subscribed = tokio::time::timeout(access.timeout, subscribe(access, address));
        match subscribed.await {
            Ok(Ok(connection)) => {
                let mut notices = connection.into_on_message();
                while let Ok(Some(_)) = tokio::time::timeout(SILENCE, notices.next()).await {
                    wanted.notify_one();
                }
            }
            // The questions tell why a sentinel does not answer.
            Ok(Err(reason)) => tracing::debug!(sentinel = %address, reason, "no notices"),
            Err(_) => {}
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn subscribe(access: &Access, address: &Address) -> Result<PubSub, String> {
    let socket = access.open(address).await?;
    let mut connection =
        PubSub::new(&access.login.info(), socket).await.map_err(|error| reason(&error))?;
    connection.subscribe(SWITCHED).await.map_err(|error| reason(&error))?;
    Ok(connection)
}
