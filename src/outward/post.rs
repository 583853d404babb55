//! POST requests of one kind to one server, over HTTP/1.1, on a connection that is kept.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, USER_AGENT};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};

use super::dial::{Dialer, chain};
use super::endpoint::Endpoint;

/// The largest answer that is read.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// The name of the program, for servers.
const NAME: &str = concat!("tollgate/", env!("CARGO_PKG_VERSION"));

/// The way to a server.
#[derive(Debug)]
pub(crate) struct Post {
    path: PathAndQuery,
    headers: HeaderMap,
    dialer: Dialer,
    /// The connection of the last request, if it can be used again.
    open: Option<SendRequest<Full<Bytes>>>,
}

impl Post {
    /// Requests to `endpoint` over `dialer` with `headers`, of this type of content, to this path
    /// where the endpoint has none.
    pub(crate) fn new(
        endpoint: &Endpoint,
        dialer: Dialer,
        mut headers: HeaderMap,
        (content_type, default_path): (&'static str, &'static str),
    ) -> Self {
        let uri = endpoint.uri();
        let path = uri.path_and_query().filter(|path| path.as_str() != "/").cloned();
        let host = uri.authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok());
        headers.extend(host.map(|host| (HOST, host)));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(USER_AGENT, HeaderValue::from_static(NAME));
        let path = path.unwrap_or_else(|| PathAndQuery::from_static(default_path));
        Self { path, headers, dialer, open: None }
    }

    /// Sends `body`; returns the status and the body of the answer.
    ///
    /// # Errors
    /// Fails with the reason if there is no answer.
    pub(crate) async fn send(&mut self, body: Bytes) -> Result<(StatusCode, Bytes), String> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from(self.path.clone());
        request.headers_mut().clone_from(&self.headers);
        // Taken: a connection whose request failed, or ended early, is not used again.
        let mut connection = match self.open.take().filter(|open| !open.is_closed()) {
            Some(open) => open,
            None => self.connect().await?,
        };
        let response = connection.send_request(request).await.map_err(|error| chain(&error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
        let body = body.map_err(|error| chain(&*error))?.to_bytes();
        self.open = connection.ready().await.is_ok().then_some(connection);
        Ok((status, body))
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, String> {
        let io = self.dialer.connect().await.map_err(|error| chain(&error))?;
        let (sender, connection) = handshake(io).await.map_err(|error| chain(&error))?;
        // Its errors are those of the request.
        tokio::spawn(async move { drop(connection.await) });
        Ok(sender)
    }
}
