//! Secrets: values that are used but never shown.
//!
//! This hides values from logs, faults and `print-config`. It does not wipe or lock memory.

use std::fmt;
use std::sync::Arc;

use redis::IntoConnectionInfo;

/// What is shown in place of a secret.
const REDACTED: &str = "[redacted]";

/// A value that neither `Debug` nor `Display` shows.
#[derive(Clone, Eq, PartialEq)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Hides `value`.
    pub fn new(value: &str) -> Self {
        Self(value.into())
    }

    /// The value itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

/// The URL of a Redis server. Shown with host, user and database, but without its password.
#[derive(Clone, Eq, PartialEq)]
pub struct RedisUrl(Secret);

impl RedisUrl {
    /// Reads a URL that the Redis client can connect to.
    ///
    /// # Errors
    /// What the client finds wrong with it, without any part of the URL.
    pub fn new(url: &str) -> Result<Self, String> {
        let Err(error) = url.into_connection_info() else { return Ok(Self(Secret::new(url))) };
        let error = error.to_string();
        // What follows is the client's word for the kind of error.
        Err(error.split_once(" - ").map_or(error.as_str(), |(reason, _)| reason).to_owned())
    }

    /// The whole URL, password included.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(mut url) = redis::parse_redis_url(self.expose()) else {
            return f.write_str(REDACTED);
        };
        if url.password().is_some() && url.set_password(Some("***")).is_err() {
            return f.write_str(REDACTED);
        }
        // A Unix socket takes its password from the query.
        if url.query_pairs().any(|(name, _)| name == "pass") {
            url.set_query(None);
        }
        f.write_str(url.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_is_never_shown() {
        let secret = Secret::new("hunter2");
        assert_eq!(
            format!("{secret} {secret:?} {:?}", Some(&secret)).matches("hunter2").count(),
            0
        );
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn redis_url_is_shown_without_its_password() {
        for (url, shown) in [
            ("redis://127.0.0.1:6379", "redis://127.0.0.1:6379"),
            ("redis://ann:pa%20ss@cache:6380/3", "redis://ann:***@cache:6380/3"),
            ("redis://:hunter2@cache", "redis://:***@cache"),
            ("unix:///run/redis.sock?db=2&pass=hunter2", "unix:///run/redis.sock"),
        ] {
            let parsed = RedisUrl::new(url).unwrap();
            assert_eq!(parsed.to_string(), shown);
            assert_eq!(format!("{parsed:?}"), shown);
            assert_eq!(parsed.expose(), url);
        }
    }

    #[test]
    fn url_that_is_not_of_redis_is_refused_without_repeating_it() {
        for url in ["http://hunter2@cache", "hunter2", "redis://:hunter2@cache/x", "redis://"] {
            let reason = RedisUrl::new(url).unwrap_err();
            assert!(!reason.contains("hunter2"), "{reason}");
        }
    }
}
