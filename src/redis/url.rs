//! The URL of a Redis: used with its password, shown without it.

use std::fmt;

use redis::IntoConnectionInfo;

use crate::settings::{Secret, Setting, quoted};

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
            return self.0.fmt(f);
        };
        if url.password().is_some() && url.set_password(Some("***")).is_err() {
            return self.0.fmt(f);
        }
        // A Unix socket takes its password from the query.
        if url.query_pairs().any(|(name, _)| name == "pass") {
            url.set_query(None);
        }
        f.write_str(url.as_str())
    }
}

impl Setting for RedisUrl {
    const EXPECTED: &'static str = "a URL such as redis://user:password@host:6379/0";
    const SECRET: bool = true;

    fn parse(text: &str) -> Option<Self> {
        Self::new(text).ok()
    }

    fn show(&self) -> String {
        quoted(&self.to_string())
    }

    fn hint(text: &str) -> Option<String> {
        Self::new(text).err()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
