//! Connections to a server: name, TCP, TLS.
//!
//! Everything is made anew at each connection: the name is resolved, and the files of TLS are read,
//! because both change while tollgate runs.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tonic::codegen::Service;

use super::endpoint::Endpoint;
use crate::tls::{Files, Paths, TlsFault, client_config, read_client_config};

/// A stream of bytes.
pub(crate) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

pub(crate) type Io = TokioIo<Box<dyn Socket>>;

/// Connects to one server.
#[derive(Clone, Debug)]
pub(crate) struct Dialer {
    endpoint: Endpoint,
    /// The files; none: without TLS.
    tls: Option<Arc<Paths>>,
    alpn: &'static [u8],
    timeout: Duration,
}

impl Dialer {
    /// A dialer to `endpoint`, with TLS by the files of `paths` if its scheme says so. It takes
    /// at most `timeout` and speaks `alpn`.
    ///
    /// # Errors
    /// Fails if the files of TLS cannot be used now.
    pub(crate) fn new(
        endpoint: &Endpoint,
        paths: Paths,
        alpn: &'static [u8],
        timeout: Duration,
    ) -> Result<Self, TlsFault> {
        let paths = endpoint.is_https().then_some(paths);
        if let Some(paths) = &paths {
            client_config(&Files::read(paths)?, None)?;
        }
        let endpoint = endpoint.clone();
        Ok(Self { endpoint, tls: paths.map(Arc::new), alpn, timeout })
    }

    /// A new connection.
    pub(crate) async fn connect(&self) -> io::Result<Io> {
        let connected = tokio::time::timeout(self.timeout, self.connect_at_last()).await;
        connected.unwrap_or_else(|_| Err(io::Error::other("no connection in time")))
    }

    async fn connect_at_last(&self) -> io::Result<Io> {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.enforce_http(false);
        let tcp = connector.call(self.endpoint.uri().clone()).await;
        let tcp = tcp.map_err(|error| io::Error::other(chain(&error)))?.into_inner();
        let Some(paths) = &self.tls else { return Ok(TokioIo::new(Box::new(tcp))) };
        let section = paths.ca.setting;
        let config = read_client_config(Arc::clone(paths), self.alpn, section).await;
        let config = config.map_err(io::Error::other)?;
        let name = ServerName::try_from(self.endpoint.host().to_owned());
        let name = name.map_err(io::Error::other)?;
        let tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
        Ok(TokioIo::new(Box::new(tls)))
    }
}

/// The connector of a gRPC channel.
impl Service<Uri> for Dialer {
    type Response = Io;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Io>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let dialer = self.clone();
        Box::pin(async move { dialer.connect().await })
    }
}

/// An error with its causes, each told once.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_is_told_with_its_causes_once() {
        let inner = io::Error::other("refused");
        let outer = io::Error::other(inner);
        assert_eq!(chain(&outer), "refused");
    }
}
