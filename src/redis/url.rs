//! The URL of a Redis, displayed without its password.

use std::borrow::Cow;
use std::fmt;

use redis::IntoConnectionInfo;

use crate::settings::{NOT_A_SECRET, REDACTED, Secret, Setting, quoted};

/// The parameter of a Unix socket's URL that holds the password.
const PASSWORD: &str = "pass";

/// The URL of a Redis server. `Debug` and `Display` show host, user and database, but no password.
#[derive(Clone, Eq, PartialEq)]
pub struct RedisUrl(Secret);

impl RedisUrl {
    /// Reads a URL that the Redis client can connect to.
    ///
    /// # Errors
    /// Fails with the reason of the Redis client, without any part of the URL, or if the password
    /// is redacted.
    pub fn new(url: &str) -> Result<Self, String> {
        match url.into_connection_info() {
            Ok(_) if is_redacted(url) => Err(NOT_A_SECRET.to_owned()),
            Ok(_) => Ok(Self(Secret::new(url))),
            Err(error) => {
                let error = error.to_string();
                // The rest is the client's name for the kind of error.
                let reason = error.split_once(" - ").map_or(error.as_str(), |(reason, _)| reason);
                Err(reason.to_owned())
            }
        }
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
        if url.password().is_some() && url.set_password(Some(REDACTED)).is_err() {
            return self.0.fmt(f);
        }
        if url.query().is_some() {
            let shown = |(name, value): (Cow<'_, str>, Cow<'_, str>)| {
                let value = if name == PASSWORD { REDACTED.into() } else { value };
                (name.into_owned(), value.into_owned())
            };
            let pairs: Vec<_> = url.query_pairs().map(shown).collect();
            url.query_pairs_mut().clear().extend_pairs(pairs);
        }
        f.write_str(url.as_str())
    }
}

/// True if the password of `url` is the mark of a redacted one. A real password `***` can be
/// written as `%2A%2A%2A`.
fn is_redacted(url: &str) -> bool {
    redis::parse_redis_url(url).is_some_and(|url| {
        let in_query = url.query_pairs().any(|(name, value)| name == PASSWORD && value == REDACTED);
        url.password() == Some(REDACTED) || in_query
    })
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
            ("unix:///run/redis.sock?db=2&pass=hunter2", "unix:///run/redis.sock?db=2&pass=***"),
        ] {
            let parsed = RedisUrl::new(url).unwrap();
            assert_eq!(parsed.to_string(), shown);
            assert_eq!(format!("{parsed:?}"), shown);
            assert_eq!(parsed.expose(), url);
        }
    }

    #[test]
    fn url_as_it_is_shown_is_refused() {
        for url in ["redis://ann:hunter2@cache", "unix:///run/redis.sock?pass=hunter2&db=1"] {
            let shown = RedisUrl::new(url).unwrap().to_string();
            assert!(RedisUrl::new(&shown).unwrap_err().contains("write the secret"), "{shown}");
        }
        assert!(RedisUrl::new("redis://:%2A%2A%2A@cache").is_ok());
    }

    #[test]
    fn url_that_is_not_of_redis_is_refused_without_repeating_it() {
        for url in ["http://hunter2@cache", "hunter2", "redis://:hunter2@cache/x", "redis://"] {
            let reason = RedisUrl::new(url).unwrap_err();
            assert!(!reason.contains("hunter2"), "{reason}");
        }
    }
}
