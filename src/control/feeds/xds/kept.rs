//! The last good response in Redis, by which a replica starts while the control plane is away.
//!
//! Whoever accepts a response writes it. All replicas of a node get the same, so it does not matter
//! which of them was last. It is kept for [`KEPT_FOR`] and has the hash tag of the registry.

use std::fmt;
use std::time::Duration;

use prost::Message as _;
use prost_types::Any;
use redis::Value;
use tokio::runtime::Handle;

use super::pb::DiscoveryResponse;
use crate::control::registry::redis::link::Link;
use crate::domain::Key;
use crate::redis::Connector;

/// The time after which a response of a control plane that nobody has seen since is forgotten.
const KEPT_FOR: Duration = Duration::from_hours(30 * 24);

/// The longest wait for Redis: a response may have megabytes.
const PATIENCE: Duration = Duration::from_secs(2);

/// The place of the last good response.
pub struct Kept {
    link: Link,
    key: String,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Kept {
    /// The place for the node `node`. Its connection lives on the runtime that calls this.
    pub fn new(connector: &Connector, prefix: &str, node: &str) -> Self {
        let key = format!("{prefix}{{registry}}:xds:{node}");
        let connector = connector.of_slot(Key::new(key.as_bytes()).slot());
        Self { link: Link::new(connector, Handle::current(), PATIENCE), key }
    }

    /// The resources of the last good response; none: there was none, or Redis is away.
    pub(super) async fn load(&self) -> Option<Vec<Any>> {
        let reason = match self.link.query(redis::cmd("GET").arg(&self.key)).await {
            Ok(Value::BulkString(bytes)) => match DiscoveryResponse::decode(&*bytes) {
                Ok(response) => return Some(response.resources),
                Err(error) => error.to_string(),
            },
            Ok(Value::Nil) => return None,
            Ok(_) => "it is no text".to_owned(),
            Err(error) => error.to_string(),
        };
        let key = &self.key;
        tracing::warn!(key, reason, "the last policies of the control plane cannot be read");
        None
    }

    /// Keeps `resources`.
    pub(super) async fn keep(&self, resources: Vec<Any>) {
        let response = DiscoveryResponse { resources, ..DiscoveryResponse::default() };
        let mut command = redis::cmd("PSETEX");
        let time = u64::try_from(KEPT_FOR.as_millis()).unwrap_or(u64::MAX);
        command.arg(&self.key).arg(time).arg(response.encode_to_vec());
        if let Err(error) = self.link.query(&command).await {
            let key = &self.key;
            tracing::warn!(key, %error, "the policies of the control plane are not kept in Redis");
        }
    }
}
