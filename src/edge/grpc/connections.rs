//! HTTP/2 connections of one core: accepted, served, asked to go, finished.
//!
//! It knows nothing of gRPC: a service answers requests.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio_stream::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::unary::Reply;

/// What every HTTP/2 connection begins with. Source: RFC 9113, section 3.4.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long a peer may take to send it.
const PREFACE_TIMEOUT: Duration = Duration::from_secs(10);

/// How often to look whether the rest of it has come: not at all, as a rule.
const PREFACE_PAUSE: Duration = Duration::from_millis(20);

/// How long connections live and how large a message may be.
#[derive(Clone, Debug)]
pub struct Connections {
    /// The largest message in bytes; a larger one is over its limit.
    pub message_bytes: usize,
    /// After this a connection is told to go elsewhere, so that load spreads over new replicas; none: never.
    pub max_age: Option<Duration>,
    /// How often an idle peer is asked whether it is there.
    pub keepalive_interval: Duration,
    /// How long it may take to answer.
    pub keepalive_timeout: Duration,
}

impl Connections {
    fn builder(&self) -> Builder<TokioExecutor> {
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .keep_alive_interval(self.keepalive_interval)
            .keep_alive_timeout(self.keepalive_timeout)
            // A proxy has as many calls under way as it has requests.
            .max_concurrent_streams(None);
        builder
    }

    /// Serves what comes in by `answer` until `stop`, then finishes the calls under way.
    pub(super) async fn serve<A, F>(
        &self,
        mut incoming: impl Stream<Item = io::Result<TcpStream>> + Unpin,
        answer: A,
        stop: CancellationToken,
    ) where
        A: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
        F: Future<Output = Response<Reply>> + Send + 'static,
    {
        let open = TaskTracker::new();
        while let Some(Some(accepted)) = stop.run_until_cancelled(incoming.next()).await {
            match accepted {
                Ok(stream) => {
                    let (builder, age) = (self.builder(), self.max_age);
                    open.spawn(connection(stream, builder, answer.clone(), age, stop.clone()));
                }
                Err(error) => tracing::warn!(%error, "a connection could not be taken over"),
            }
        }
        open.close();
        open.wait().await;
    }
}

/// One connection, until it ends or, asked to go, has finished its calls.
async fn connection<A, F>(
    stream: TcpStream,
    builder: Builder<TokioExecutor>,
    answer: A,
    max_age: Option<Duration>,
    stop: CancellationToken,
) where
    A: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<Reply>> + Send + 'static,
{
    let greeted = tokio::time::timeout(PREFACE_TIMEOUT, greeted(&stream));
    if !matches!(stop.run_until_cancelled(greeted).await, Some(Ok(Ok(())))) {
        return;
    }
    let service = service_fn(move |request| {
        let answer = answer(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let mut served = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let time_to_go = async {
        match max_age {
            Some(age) => drop(tokio::time::timeout(age, stop.cancelled()).await),
            None => stop.cancelled().await,
        }
    };
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = time_to_go => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended badly");
    }
}

/// Waits until the peer has sent the whole preface, or anything else: the protocol has an answer to that.
async fn greeted(stream: &TcpStream) -> io::Result<()> {
    let mut there = [0; PREFACE.len()];
    loop {
        let length = stream.peek(&mut there).await?;
        let partial = there.get(..length).is_some_and(|there| PREFACE.starts_with(there));
        if length == 0 || length == PREFACE.len() || !partial {
            return Ok(());
        }
        tokio::time::sleep(PREFACE_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::time::Instant;

    use super::*;

    /// How long a peer that sends `bytes` and no more is waited for; it must be let go then.
    async fn patience_with(bytes: &[u8]) -> Duration {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        peer.write_all(bytes).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let refuse = |_| async { Response::new(Reply::Sent) };
        let builder = Builder::new(TokioExecutor::new());
        let begin = Instant::now();
        connection(stream, builder, refuse, None, CancellationToken::new()).await;
        let waited = begin.elapsed();
        // The end, or a reset where something of what was sent had not been read.
        assert!(!matches!(peer.read(&mut [0]).await, Ok(1..)));
        waited
    }

    #[tokio::test(start_paused = true)]
    async fn peers_that_do_not_send_the_preface_are_let_go() {
        for beginning in [0, 1, PREFACE.len() - 1] {
            let waited = patience_with(&PREFACE[..beginning]).await;
            assert!((PREFACE_TIMEOUT..PREFACE_TIMEOUT * 2).contains(&waited), "{waited:?}");
        }
    }
}
