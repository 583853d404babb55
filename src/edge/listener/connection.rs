//! One connection: handshake, requests, graceful shutdown, and the end of the calls in flight.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio_util::sync::CancellationToken;

use super::Bounds;
use super::acceptor::Connection;
use super::refused::{Reason, Refusal};
use super::stream::{Beginning, PREFACE};

/// Serves one HTTP/2 connection with `answer`. Returns when the peer closes it, or when its calls
/// have finished after a graceful shutdown: on `stop`, or at its maximum age.
pub(in crate::edge) async fn serve_http2<A, F, B>(
    connection: Connection,
    bounds: &Bounds,
    answer: A,
    stop: &CancellationToken,
) where
    A: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let Some(Connection { stream, permit, .. }) = begun(connection, PREFACE, bounds, stop).await
    else {
        return;
    };
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        // gRPC has no use for it.
        .auto_date_header(false)
        .keep_alive_interval(bounds.keepalive_interval)
        .keep_alive_timeout(bounds.keepalive_timeout)
        .max_header_list_size(bounds.listener.max_header_bytes)
        .max_concurrent_streams(bounds.listener.max_streams);
    let mut served = pin!(builder.serve_connection(TokioIo::new(stream), service(answer)));
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = until_shutdown(bounds.max_age, stop) => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    log_failure(ended);
    drop(permit);
}

/// [`serve_http2`] for HTTP/1.
pub(in crate::edge) async fn serve_http1<A, F, B>(
    connection: Connection,
    bounds: &Bounds,
    answer: A,
    stop: &CancellationToken,
) where
    A: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let Some(Connection { stream, permit, .. }) = begun(connection, b"", bounds, stop).await else {
        return;
    };
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(bounds.listener.handshake_timeout);
    let mut served = pin!(builder.serve_connection(TokioIo::new(stream), service(answer)));
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = until_shutdown(bounds.max_age, stop) => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    log_failure(ended);
    drop(permit);
}

fn service<A, F, B>(
    answer: A,
) -> impl hyper::service::Service<
    Request<Incoming>,
    Response = Response<B>,
    Error = Infallible,
    Future = impl Future<Output = Result<Response<B>, Infallible>> + Send + 'static,
>
where
    A: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body,
{
    service_fn(move |request| {
        let answer = answer(request);
        async move { Ok::<_, Infallible>(answer.await) }
    })
}

async fn until_shutdown(max_age: Option<Duration>, stop: &CancellationToken) {
    match max_age {
        Some(age) => drop(tokio::time::timeout(age, stop.cancelled()).await),
        None => stop.cancelled().await,
    }
}

fn log_failure(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection failed");
    }
}

/// The connection once its peer has sent `expected`, or bytes that differ from it, which hyper
/// handles. `None` if that takes too long, on `stop`, or for TLS where none is served.
async fn begun(
    mut connection: Connection,
    expected: &[u8],
    bounds: &Bounds,
    stop: &CancellationToken,
) -> Option<Connection> {
    let limit = bounds.listener.handshake_timeout;
    let beginning = tokio::time::timeout(limit, connection.stream.begin(expected));
    let refusal = match stop.run_until_cancelled(beginning).await? {
        Ok(Ok(Beginning::Request)) => return Some(connection),
        Ok(Ok(Beginning::UnexpectedTls)) => {
            let text = "the peer speaks TLS, which this listener does not; set its tls.cert_file, \
                        or have the peer connect without TLS";
            Refusal::new(Reason::UnexpectedTls, text.to_owned())
        }
        Ok(Ok(Beginning::End) | Err(_)) => return None,
        Err(_) => {
            let text = format!("nothing came within listeners.handshake_timeout, {limit:?}");
            Refusal::new(Reason::Late, text)
        }
    };
    connection.refusals.note(connection.peer.address, &refusal);
    None
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use http_body_util::Empty;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::Instant;

    use super::*;
    use crate::edge::listener::ListenerSettings;
    use crate::edge::listener::acceptor::Acceptor;
    use crate::telemetry::metrics::Metrics;

    const PREFACE_TIMEOUT: Duration = Duration::from_secs(10);

    fn bounds() -> Bounds {
        Bounds {
            listener: ListenerSettings {
                handshake_timeout: PREFACE_TIMEOUT,
                ..ListenerSettings::default()
            },
            max_age: None,
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: PREFACE_TIMEOUT,
        }
    }

    /// The time after which the server closes the connection of a peer that sends only `bytes`.
    async fn time_to_close(bytes: &[u8]) -> Duration {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        peer.write_all(bytes).await.unwrap();
        let metrics = Arc::new(Metrics::new(1));
        let mut acceptor = Acceptor::new(listener, "grpc", bounds(), None, metrics);
        let connection = acceptor.accept().await.attach().unwrap();
        let refuse = |_| async { Response::new(Empty::<Bytes>::new()) };
        let begin = Instant::now();
        serve_http2(connection, &bounds(), refuse, &CancellationToken::new()).await;
        let waited = begin.elapsed();
        // End of stream, or a reset if the server had unread bytes.
        assert!(!matches!(peer.read(&mut [0]).await, Ok(1..)));
        waited
    }

    #[tokio::test(start_paused = true)]
    async fn peers_that_do_not_send_the_preface_are_disconnected() {
        for beginning in [0, 1, PREFACE.len() - 1] {
            let waited = time_to_close(&PREFACE[..beginning]).await;
            assert!((PREFACE_TIMEOUT..PREFACE_TIMEOUT * 2).contains(&waited), "{waited:?}");
        }
    }
}
