//! One connection: handshake, requests, graceful shutdown, and the end of the calls in flight.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio_util::sync::CancellationToken;

use super::Bounds;
use super::acceptor::{Connection, Permit};
use super::refused::{Reason, Refusal, Refusals};
use super::stream::{Beginning, Stream};
use crate::http2::Limits;
use crate::http2::frame::PREFACE;
use crate::telemetry::sharded::ShardedGauge;

/// The bytes of one call that a peer may send before they are read. Most messages are smaller; a
/// larger one needs a round trip for each window.
const STREAM_WINDOW: u32 = 64 << 10;
/// The same of all calls of a connection. It bounds what one connection can make tollgate keep
/// unread, however many calls it has; messages are read as they arrive, so it bounds no throughput
/// within a data centre.
const CONNECTION_WINDOW: u32 = 256 << 10;
/// Bytes of an answer that wait in the buffer of one call. The rest stays with whoever produces it.
const SEND_BUFFER: usize = 64 << 10;
/// Calls that a peer may reset before they are seen; with one more the connection is closed
/// (CVE-2023-44487, "rapid reset").
const MAX_RESET_UNSEEN: usize = 20;
/// Calls that tollgate resets for errors of the peer; with one more the connection is closed
/// (CVE-2025-8671, "made you reset").
const MAX_RESETS: usize = 1_024;
/// Bytes of the head of an HTTP/1 request, and of answers that wait to be written.
const HTTP1_BUFFER: usize = 64 << 10;

/// A server of one connection. Ready: it has ended.
pub(in crate::edge) trait Engine: Future<Output = Ended> {
    /// Lets the calls in flight finish, and accepts no others.
    fn shut_down(self: Pin<&mut Self>);
}

/// The end of a connection.
#[derive(Clone, Debug)]
pub(in crate::edge) enum Ended {
    /// Its peer has closed it, or has nothing to ask any more.
    Closed,
    /// Its peer has broken the rules.
    Fault(Refusal),
    /// It failed, as when a peer goes away.
    Failed(String),
}

impl Ended {
    /// The end of a peer that has not kept to HTTP/2.
    pub(in crate::edge) fn broken(fault: &str) -> Self {
        Self::Fault(Refusal::new(Reason::Protocol, format!("the peer broke HTTP/2: {fault}")))
    }

    /// The end of a peer that gives no sign of life.
    pub(in crate::edge) fn silent() -> Self {
        let text = "the peer answered no ping, or did not finish its headers, in time";
        Self::Fault(Refusal::new(Reason::Silent, text.to_owned()))
    }
}

impl From<hyper::Error> for Ended {
    fn from(error: hyper::Error) -> Self {
        if error.is_timeout() {
            return Self::silent();
        }
        // The type of the cause is private to hyper.
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        match cause.as_deref().and_then(|cause| cause.strip_prefix("connection error detected: ")) {
            Some(fault) => Self::broken(fault),
            None => Self::Failed(error.to_string()),
        }
    }
}

/// The bounds of HTTP/2, for the engine that is tollgate's own.
pub(in crate::edge) fn limits(bounds: &Bounds, permit: &Permit) -> Limits {
    Limits {
        streams: permit.calls(),
        header_bytes: bounds.listener.max_header_bytes,
        stream_window: STREAM_WINDOW,
        connection_window: CONNECTION_WINDOW,
        resets_in_a_turn: MAX_RESET_UNSEEN,
        faults: MAX_RESETS,
    }
}

/// Serves one HTTP/2 connection with the engine that `engine` makes. Returns when the peer closes
/// it, or when its calls have finished after a graceful shutdown: on `stop`, or at its maximum age.
pub(in crate::edge) async fn serve_by<E: Engine>(
    connection: Connection,
    (expected, bounds): (&[u8], &Bounds),
    engine: impl FnOnce(Stream, &Permit) -> E,
    stop: &CancellationToken,
) {
    let Some(Connection { stream, permit, peer, refusals, .. }) =
        begun(connection, expected, bounds, stop).await
    else {
        return;
    };
    let mut served = pin!(engine(stream, &permit));
    let ended = tokio::select! {
        ended = served.as_mut() => Some(ended),
        end = until_shutdown(bounds, stop) => {
            served.as_mut().shut_down();
            within(end, served).await
        }
    };
    note(ended, peer.address, &refusals);
    drop(permit);
}

/// A connection of hyper.
struct OfHyper<C> {
    served: Pin<Box<C>>,
    shut_down: fn(Pin<&mut C>),
}

impl<C: Future<Output = hyper::Result<()>>> Future for OfHyper<C> {
    type Output = Ended;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ended> {
        self.served
            .as_mut()
            .poll(cx)
            .map(|ended| ended.map_or_else(Ended::from, |()| Ended::Closed))
    }
}

impl<C: Future<Output = hyper::Result<()>>> Engine for OfHyper<C> {
    fn shut_down(mut self: Pin<&mut Self>) {
        let shut_down = self.shut_down;
        shut_down(self.served.as_mut());
    }
}

/// Serves one HTTP/2 connection with `answer`, by hyper.
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
    let engine = |stream, permit: &Permit| {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            // gRPC has no use for it.
            .auto_date_header(false)
            .keep_alive_interval(bounds.keepalive_interval)
            .keep_alive_timeout(bounds.keepalive_timeout)
            .max_header_list_size(bounds.listener.max_header_bytes)
            .max_concurrent_streams(permit.calls())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .max_pending_accept_reset_streams(MAX_RESET_UNSEEN)
            .max_local_error_reset_streams(MAX_RESETS);
        let service = service(answer, permit.streams());
        let served = Box::pin(builder.serve_connection(TokioIo::new(stream), service));
        OfHyper { served, shut_down: http2::Connection::graceful_shutdown }
    };
    serve_by(connection, (PREFACE, bounds), engine, stop).await;
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
    let engine = |stream, permit: &Permit| {
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(bounds.listener.handshake_timeout)
            .max_buf_size(HTTP1_BUFFER);
        let service = service(answer, permit.streams());
        let served = Box::pin(builder.serve_connection(TokioIo::new(stream), service));
        OfHyper { served, shut_down: http1::Connection::graceful_shutdown }
    };
    serve_by(connection, (b"", bounds), engine, stop).await;
}

fn service<A, F, B>(
    answer: A,
    streams: ShardedGauge,
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
        let (answer, held) = (answer(request), streams.hold());
        async move {
            let answered = answer.await;
            drop(held);
            Ok::<_, Infallible>(answered)
        }
    })
}

/// Waits for `stop`, or for the maximum age of a connection, after which its calls have some time
/// to finish. On `stop` the drain of the process has a limit of its own.
async fn until_shutdown(bounds: &Bounds, stop: &CancellationToken) -> Option<Duration> {
    let Some(age) = bounds.max_age else {
        stop.cancelled().await;
        return None;
    };
    tokio::time::timeout(age, stop.cancelled()).await.is_err().then_some(bounds.grace)
}

/// The output of `served`; `None` if it takes longer than `limit`. A peer could otherwise hold a
/// connection for ever by a call that does not end.
async fn within<T>(limit: Option<Duration>, served: impl Future<Output = T>) -> Option<T> {
    match limit {
        Some(limit) => tokio::time::timeout(limit, served).await.ok(),
        None => Some(served.await),
    }
}

/// Notes how a connection ended, if that is for what its peer did.
fn note(ended: Option<Ended>, peer: SocketAddr, refusals: &Refusals) {
    let refusal = match ended {
        Some(Ended::Closed) => return,
        Some(Ended::Fault(refusal)) => refusal,
        Some(Ended::Failed(error)) => return tracing::debug!(error, "a connection failed"),
        None => {
            let text = "its calls did not finish in grpc.drain_timeout after its maximum age";
            Refusal::new(Reason::Overstayed, text.to_owned())
        }
    };
    refusals.cut(peer, &refusal);
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
            grace: Duration::ZERO,
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
