//! The URL of a Redis: its parts, and the form displayed without its password.

use std::borrow::Cow;
use std::fmt;

use redis::{ConnectionAddr, IntoConnectionInfo as _};

use super::address::Address;
use crate::settings::{NOT_A_SECRET, REDACTED, Secret, Setting, quoted};

/// The parameter of a Unix socket's URL that holds the password.
const PASSWORD: &str = "pass";

/// The schemes of URLs over TLS, each with the one without.
const TLS_SCHEMES: [(&str, &str); 2] = [("rediss", "redis"), ("valkeys", "valkey")];

/// The parts of a URL.
#[derive(Default)]
pub(super) struct Target {
    /// `None` in the default alone.
    pub(super) address: Option<Address>,
    pub(super) tls: bool,
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    pub(super) database: i64,
}

impl Target {
    /// Reads a URL. The client library reads URLs over TLS only with a TLS of its own, so the
    /// scheme is read here.
    fn of(text: &str) -> Result<Self, String> {
        let Some(mut url) = redis::parse_redis_url(text) else {
            return Err("it is no URL of Redis".to_owned());
        };
        let plain = TLS_SCHEMES.into_iter().find(|(scheme, _)| *scheme == url.scheme());
        if let Some((_, plain)) = plain
            && url.set_scheme(plain).is_err()
        {
            return Err("its scheme cannot be read".to_owned());
        }
        if url.fragment().is_some() {
            let hint = "write no `#...`; redis.tls.skip_hostname: true leaves out the name";
            return Err(hint.to_owned());
        }
        let info = url.into_connection_info().map_err(|error| {
            // The detail gives the reason without quoting the URL.
            error.detail().map_or_else(|| reason(&error.to_string()), ToOwned::to_owned)
        })?;
        let address = match info.addr() {
            ConnectionAddr::Tcp(host, port) => Address::Tcp(host.clone(), *port),
            ConnectionAddr::Unix(path) => Address::Unix(path.clone()),
            _ => return Err("this kind of address is not supported".to_owned()),
        };
        let login = info.redis_settings();
        Ok(Self {
            address: Some(address),
            tls: plain.is_some(),
            user: login.username().map(ToOwned::to_owned),
            password: login.password().map(ToOwned::to_owned),
            database: login.db(),
        })
    }
}

/// The reason in an error of the client library; the rest is its name for the kind of error.
fn reason(error: &str) -> String {
    error.split_once(" - ").map_or(error, |(reason, _)| reason).to_owned()
}

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
        Target::of(url)?;
        if is_redacted(url) {
            return Err(NOT_A_SECRET.to_owned());
        }
        Ok(Self(Secret::new(url)))
    }

    /// The parts of the URL.
    pub(super) fn target(&self) -> Result<Target, String> {
        Target::of(self.expose())
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
            ("rediss://:hunter2@cache:6380", "rediss://:***@cache:6380"),
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
        for url in [
            "",
            "http://hunter2@cache",
            "hunter2",
            "redis//x",
            "redis://:hunter2@cache/x",
            "redis://",
            "rediss://:hunter2@cache/#insecure",
        ] {
            let reason = RedisUrl::new(url).unwrap_err();
            assert!(!reason.contains("hunter2"), "{reason}");
        }
    }

    #[test]
    fn parts_of_a_url_are_read_with_and_without_tls() {
        let target = |url: &str| RedisUrl::new(url).unwrap().target().unwrap();
        let tls = target("rediss://ann:pa%20ss@cache/3");
        assert_eq!(tls.address, Some(Address::Tcp("cache".to_owned(), 6379)));
        assert_eq!((tls.tls, tls.database), (true, 3));
        assert_eq!((tls.user.as_deref(), tls.password.as_deref()), (Some("ann"), Some("pa ss")));
        let plain = target("redis://[::1]:7");
        assert_eq!((plain.tls, plain.user, plain.password), (false, None, None));
        assert_eq!(plain.address, Some(Address::Tcp("::1".to_owned(), 7)));
        let unix = target("unix:///run/redis.sock?db=2&user=ann&pass=x");
        assert_eq!(unix.address, Some(Address::Unix("/run/redis.sock".into())));
        assert_eq!((unix.user.as_deref(), unix.database), (Some("ann"), 2));
    }
}
