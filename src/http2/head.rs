//! The head of a request, from the fields of its block of headers; and its trailers.
//!
//! Source: RFC 9113, sections 8.2 and 8.3. A request that breaks these rules is malformed, which is
//! an error of its stream.

use http::header::CONTENT_LENGTH;
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

/// The size of a field beside its bytes. Source: RFC 9113, section 6.5.2.
const FIELD_BYTES: usize = 32;

/// Fields of so many times the bound cost their connection.
const EXCESS: usize = 4;

/// Fields that are for one connection of HTTP/1.
const OF_HTTP1: [&[u8]; 5] =
    [b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"];

/// The fields of a block, as they come.
#[derive(Debug)]
pub(super) struct Fields {
    method: Option<Method>,
    scheme: Option<Scheme>,
    authority: Option<Authority>,
    path: Option<PathAndQuery>,
    headers: HeaderMap,
    /// The bytes, those that are not kept included.
    size: usize,
    max: usize,
    fault: Option<Fault>,
}

/// The reason why fields are no head.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fault {
    /// They break the rules.
    Malformed,
    /// They are larger than the bound.
    TooLarge,
}

/// A head, and the length that it announces for the body.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) parts: Parts,
    pub(super) content_length: Option<u64>,
}

impl Fields {
    /// Of at most `max` bytes.
    pub(super) fn new(max: usize) -> Self {
        Self {
            method: None,
            scheme: None,
            authority: None,
            path: None,
            headers: HeaderMap::new(),
            size: 0,
            max,
            fault: None,
        }
    }

    /// Adds a field. Those after a fault are not kept.
    pub(super) fn add(&mut self, name: &[u8], value: &[u8]) {
        self.size += FIELD_BYTES + name.len() + value.len();
        if self.fault.is_some() {
            return;
        }
        let added = if self.size > self.max {
            Err(Fault::TooLarge)
        } else {
            match name.strip_prefix(b":") {
                Some(name) => self.add_pseudo(name, value),
                None => self.add_header(name, value),
            }
            .ok_or(Fault::Malformed)
        };
        self.fault = added.err();
    }

    /// True if the fields are far beyond their bound, as a few bytes that refer to a long field
    /// make them.
    pub(super) const fn are_excessive(&self) -> bool {
        self.size > EXCESS * self.max
    }

    /// Each of them once, and before all others.
    fn add_pseudo(&mut self, name: &[u8], value: &[u8]) -> Option<()> {
        if !self.headers.is_empty() {
            return None;
        }
        match name {
            b"method" => once(&mut self.method, Method::from_bytes(value).ok()?),
            b"scheme" => once(&mut self.scheme, Scheme::try_from(value).ok()?),
            b"authority" => once(&mut self.authority, Authority::try_from(value).ok()?),
            b"path" => {
                let is_path = matches!(value, [b'/' | b'*', ..]);
                once(&mut self.path, PathAndQuery::try_from(value).ok().filter(|_| is_path)?)
            }
            _ => None,
        }
    }

    fn add_header(&mut self, name: &[u8], value: &[u8]) -> Option<()> {
        let is_te = name == b"te" && value != b"trailers";
        if OF_HTTP1.contains(&name) || is_te {
            return None;
        }
        let name = HeaderName::from_lowercase(name).ok()?;
        let value = HeaderValue::from_bytes(value).ok()?;
        self.headers.try_append(name, value).ok().map(|_| ())
    }

    /// The head of a request.
    pub(super) fn head(self) -> Result<Head, Fault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        self.parts().ok_or(Fault::Malformed)
    }

    /// True if the fields may be trailers.
    pub(super) fn are_trailers(&self) -> bool {
        let pseudo = self.method.is_some()
            || self.scheme.is_some()
            || self.authority.is_some()
            || self.path.is_some();
        self.fault.is_none() && !pseudo
    }

    fn parts(self) -> Option<Head> {
        let Self { method, scheme, authority, path, headers, .. } = self;
        let method = method?;
        let mut uri = http::uri::Parts::default();
        if method == Method::CONNECT {
            if scheme.is_some() || path.is_some() {
                return None;
            }
            uri.authority = Some(authority?);
        } else {
            // A URI has a scheme if it has an authority.
            let (scheme, path) = (scheme?, path?);
            uri.scheme = authority.is_some().then_some(scheme);
            uri.authority = authority;
            uri.path_and_query = Some(path);
        }
        let (mut parts, ()) = http::Request::new(()).into_parts();
        parts.method = method;
        parts.uri = Uri::from_parts(uri).ok()?;
        parts.version = http::Version::HTTP_2;
        let content_length = content_length(&headers).ok()?;
        parts.headers = headers;
        Some(Head { parts, content_length })
    }
}

fn once<T>(place: &mut Option<T>, value: T) -> Option<()> {
    place.replace(value).is_none().then_some(())
}

/// The length that headers announce, which has to be one number.
fn content_length(headers: &HeaderMap) -> Result<Option<u64>, Fault> {
    let mut length = None;
    for value in headers.get_all(CONTENT_LENGTH) {
        let digits = value.to_str().ok();
        let digits = digits.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_digit()));
        let value = digits.and_then(|digits| digits.parse().ok()).ok_or(Fault::Malformed)?;
        if length.replace(value).is_some_and(|before: u64| before != value) {
            return Err(Fault::Malformed);
        }
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: [(&str, &str); 4] =
        [(":method", "POST"), (":scheme", "http"), (":path", "/s/m"), (":authority", "a:1")];

    fn head(fields: &[(&str, &str)]) -> Result<Head, Fault> {
        let mut all = Fields::new(400);
        for (name, value) in fields {
            all.add(name.as_bytes(), value.as_bytes());
        }
        all.head()
    }

    fn with(more: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
        REQUEST.iter().chain(more).copied().collect()
    }

    #[test]
    fn request_is_read() {
        let head = head(&with(&[("te", "trailers"), ("content-length", "7")])).unwrap();
        assert_eq!(head.parts.method, Method::POST);
        assert_eq!(head.parts.uri, "http://a:1/s/m");
        assert_eq!(head.parts.headers["te"], "trailers");
        assert_eq!(head.content_length, Some(7));
    }

    #[test]
    fn authority_may_be_missing() {
        let head = head(&REQUEST[..3]).unwrap();
        assert_eq!((head.parts.uri.path(), head.parts.uri.authority()), ("/s/m", None));
    }

    #[test]
    fn what_breaks_the_rules_is_malformed() {
        let cases: &[&[(&str, &str)]] = &[
            &[],
            &REQUEST[1..],
            &[REQUEST[0], REQUEST[2]],
            &REQUEST[..2],
            &[REQUEST[0], REQUEST[0], REQUEST[1], REQUEST[2]],
            &[REQUEST[0], ("a", "b"), REQUEST[1], REQUEST[2]],
            &[REQUEST[0], REQUEST[1], (":path", "")],
            &[REQUEST[0], REQUEST[1], (":path", "s/m")],
            &with(&[(":status", "200")]),
            &with(&[(":unknown", "200")]),
            &with(&[("A", "b")]),
            &with(&[("", "b")]),
            &with(&[("a b", "b")]),
            &with(&[("a", "b\0")]),
            &with(&[("connection", "close")]),
            &with(&[("upgrade", "h2c")]),
            &with(&[("transfer-encoding", "chunked")]),
            &with(&[("te", "gzip")]),
            &with(&[("content-length", "+1")]),
            &with(&[("content-length", "1"), ("content-length", "2")]),
        ];
        for case in cases {
            assert_eq!(head(case).err(), Some(Fault::Malformed), "{case:?}");
        }
    }

    #[test]
    fn bytes_are_bounded() {
        let used = REQUEST.iter().map(|(name, value)| name.len() + value.len() + 32).sum::<usize>();
        let fits = "x".repeat(400 - used - 32 - 1);
        let case: Vec<_> = REQUEST.iter().copied().chain([("a", &*fits)]).collect();
        assert!(head(&case).is_ok());
        let longer = format!("{fits}x");
        let case: Vec<_> = REQUEST.iter().copied().chain([("a", &*longer)]).collect();
        assert_eq!(head(&case).err(), Some(Fault::TooLarge));
    }
}
