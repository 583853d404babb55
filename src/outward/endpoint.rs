//! The URL of a server that tollgate sends to.

use std::fmt;

use http::Uri;
use http::uri::Scheme;

use crate::settings::{Setting, quoted};

/// The URL of a server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Endpoint(Uri);

impl Endpoint {
    pub(crate) const fn uri(&self) -> &Uri {
        &self.0
    }

    /// True if the scheme means TLS.
    pub(crate) fn is_https(&self) -> bool {
        self.0.scheme() == Some(&Scheme::HTTPS)
    }

    /// The host, without brackets.
    pub(crate) fn host(&self) -> &str {
        self.0.host().unwrap_or_default().trim_matches(['[', ']'])
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A URL without a path has `/` in it.
        let text = self.0.to_string();
        f.write_str(text.strip_suffix('/').unwrap_or(&text))
    }
}

impl Setting for Endpoint {
    const EXPECTED: &'static str = "a URL such as http://otel-collector:4317";

    fn parse(text: &str) -> Option<Self> {
        let uri: Uri = text.parse().ok()?;
        let known = [Scheme::HTTP, Scheme::HTTPS].iter().any(|known| uri.scheme() == Some(known));
        let authority = uri.authority()?.as_str();
        // Credentials in it would be shown by print-config; they are for headers.
        let sound = known && uri.query().is_none() && !authority.contains('@');
        (sound && !uri.host()?.is_empty()).then_some(Self(uri))
    }

    fn show(&self) -> String {
        quoted(&self.to_string())
    }

    fn hint(text: &str) -> Option<String> {
        let bare = !text.is_empty() && !text.contains("://");
        bare.then(|| format!("add a scheme: http://{text}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoint_is_a_url_of_http() {
        for (text, https, host) in [
            ("http://otel-collector:4317", false, "otel-collector"),
            ("https://collector.example/v1/traces", true, "collector.example"),
            ("http://[::1]:4318", false, "::1"),
        ] {
            let endpoint = Endpoint::parse(text).unwrap();
            assert_eq!((endpoint.is_https(), endpoint.host()), (https, host), "{text}");
            assert_eq!(endpoint.to_string(), text);
        }
        for text in ["", "collector:4317", "grpc://a:1", "http://", "http://u:p@a:1", "http://a/?k"]
        {
            assert_eq!(Endpoint::parse(text), None, "{text}");
        }
        let hint = Endpoint::hint("collector:4317").unwrap();
        assert_eq!(hint, "add a scheme: http://collector:4317");
    }
}
