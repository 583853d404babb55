//! One connection: handshake, requests, graceful shutdown, and the end of the calls in flight.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::Bounds;

/// The client preface of HTTP/2. Source: RFC 9113, section 3.4.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Poll interval for the rest of a partial preface, which is rare.
const PREFACE_PAUSE: Duration = Duration::from_millis(20);

/// Serves one HTTP/2 connection with `answer`. Returns when the peer closes it, or when its calls
/// have finished after a graceful shutdown: on `stop`, or at its maximum age.
pub(in crate::edge) async fn serve_http2<A, F, B>(
    stream: TcpStream,
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
    let preface = tokio::time::timeout(bounds.listener.handshake_timeout, preface(&stream));
    if !matches!(stop.run_until_cancelled(preface).await, Some(Ok(Ok(())))) {
        return;
    }
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
}

/// [`serve_http2`] for HTTP/1.
pub(in crate::edge) async fn serve_http1<A, F, B>(
    stream: TcpStream,
    bounds: &Bounds,
    answer: A,
    stop: &CancellationToken,
) where
    A: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
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

/// Waits until the peer has sent the whole preface, or bytes that differ from it. hyper handles the
/// latter.
async fn preface(stream: &TcpStream) -> io::Result<()> {
    let mut received = [0; PREFACE.len()];
    loop {
        let length = stream.peek(&mut received).await?;
        let partial = received.get(..length).is_some_and(|bytes| PREFACE.starts_with(bytes));
        if length == 0 || length == PREFACE.len() || !partial {
            return Ok(());
        }
        tokio::time::sleep(PREFACE_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::Empty;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::time::Instant;

    use super::*;
    use crate::edge::listener::ListenerSettings;

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
        let (stream, _) = listener.accept().await.unwrap();
        let refuse = |_| async { Response::new(Empty::<Bytes>::new()) };
        let begin = Instant::now();
        serve_http2(stream, &bounds(), refuse, &CancellationToken::new()).await;
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
