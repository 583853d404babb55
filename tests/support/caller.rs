//! A caller of HTTP/1.1 from an address of its own, so that one machine has many remote addresses (Linux routes all
//! of 127.0.0.0/8 to loopback).

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// Sends requests to one server from one address, over as many connections as are needed at once.
#[derive(Clone)]
pub struct Caller {
    client: Client<HttpConnector, Full<Bytes>>,
    server: SocketAddr,
    sent: Arc<AtomicU64>,
}

/// What came back, and when.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub sent: Instant,
    pub answered: Instant,
}

impl Caller {
    /// A caller at `from` that adds its requests to `sent`.
    pub fn new(server: SocketAddr, from: Ipv4Addr, sent: Arc<AtomicU64>) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_local_address(Some(from.into()));
        connector.set_nodelay(true);
        // What fails shall be seen to fail.
        let client =
            Client::builder(TokioExecutor::new()).retry_canceled_requests(false).build(connector);
        Self { client, server, sent }
    }

    /// A caller at 127.0.0.1 whose requests nobody counts.
    pub fn of(server: SocketAddr) -> Self {
        Self::new(server, Ipv4Addr::LOCALHOST, Arc::default())
    }

    pub async fn get(&self, path: &str) -> Result<Answer, String> {
        self.send(self.request("GET", path).body(Full::default()).unwrap()).await
    }

    pub async fn get_with(
        &self,
        path: &str,
        header: &'static str,
        value: &[u8],
    ) -> Result<Answer, String> {
        let value = HeaderValue::from_bytes(value).unwrap();
        let request = self.request("GET", path).header(header, value);
        self.send(request.body(Full::default()).unwrap()).await
    }

    pub async fn get_with_all(
        &self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Answer, String> {
        let request = self.request("GET", path);
        let with = |request: http::request::Builder, (name, value): &(&str, &str)| {
            request.header(*name, *value)
        };
        let request = headers.iter().fold(request, with);
        self.send(request.body(Full::default()).unwrap()).await
    }

    pub async fn post(&self, path: &str, json: &'static str) -> Result<Answer, String> {
        let request = self.request("POST", path).header("content-type", "application/json");
        self.send(request.body(Full::new(Bytes::from_static(json.as_bytes()))).unwrap()).await
    }

    fn request(&self, method: &str, path: &str) -> http::request::Builder {
        Request::builder().method(method).uri(format!("http://{}{path}", self.server))
    }

    /// The whole answer, or why there is none.
    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Answer, String> {
        self.sent.fetch_add(1, Ordering::Relaxed);
        let sent = Instant::now();
        let response = self.client.request(request).await.map_err(|error| format!("{error:?}"))?;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.map_err(|error| format!("{error:?}"))?.to_bytes();
        let answered = Instant::now();
        Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body, sent, answered })
    }
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// A header that is a whole number and there once.
    pub fn number(&self, name: &str) -> u64 {
        let values: Vec<_> = self.headers.get_all(name).iter().collect();
        assert_eq!(values.len(), 1, "{name} in {:?}", self.headers);
        values[0].to_str().unwrap().parse().unwrap()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn took(&self) -> Duration {
        self.answered - self.sent
    }
}
