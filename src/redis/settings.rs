//! The section `redis` of the settings, used by the store and the registry.

use std::path::PathBuf;
use std::time::Duration;

use super::BadUrl;
use super::connect::Connector;
use super::url::RedisUrl;
use crate::settings::{Reader, SOME_TIME, section};

section! {
    /// Redis, which shares counters between replicas.
    pub struct RedisSettings in "redis" {
        /// `redis://[user][:password@]host[:port][/database]`; unset = counters in the memory of
        /// this process.
        url: Option<RedisUrl> = "",
        /// File that holds `url`. An alternative to it.
        url_file: Option<PathBuf> = "",
        /// Prefix of every key.
        key_prefix: String = "tollgate:",
        /// Maximum of batches in flight to Redis, per thread; 1 to 64.
        frames_in_flight: usize = "2" in 1..=64,
        /// Maximum of limits in a batch of several requests; 1 to 1000, where 1 = a batch for each
        /// request.
        frame_limits: usize = "64" in 1..=1_000,
        /// Time to connect.
        connect_timeout: Duration = "1s" in SOME_TIME..,
        /// Silence of Redis after which the connection counts as broken.
        response_timeout: Duration = "500ms" in SOME_TIME..,
    }
}

impl RedisSettings {
    /// The defaults for the Redis at `url`.
    ///
    /// # Errors
    /// Fails if the URL cannot be used.
    pub fn new(url: impl AsRef<str>) -> Result<Self, BadUrl> {
        let url = RedisUrl::new(url.as_ref()).map_err(BadUrl)?;
        Ok(Self { url: Some(url), ..Self::default() })
    }

    /// Makes a connector for this Redis.
    ///
    /// # Errors
    /// Fails if there is no URL, or it cannot be used.
    pub(crate) fn connector(&self) -> Result<Connector, BadUrl> {
        let url = self.url.as_ref().ok_or_else(|| BadUrl("it is unset".to_owned()))?;
        Connector::new(url.expose(), self.connect_timeout)
    }

    /// The URL comes from its file; the prefix leaves the hash tags alone.
    pub(crate) fn resolve(&mut self, reader: &mut Reader) {
        reader.file("redis.url", &mut self.url, self.url_file.as_deref());
        let prefix = &self.key_prefix;
        // Braces would move the hash tag, and with it the slot, of every key in a Redis Cluster.
        if prefix.chars().any(|c| c.is_control() || matches!(c, '{' | '}')) {
            let expected = "expected text without braces and control characters";
            reader.refuse("redis.key_prefix", format!("found {prefix:?}, {expected}"));
        }
    }
}
