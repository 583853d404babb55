//! The same connection, served by the `h2` crate.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use h2::server::Builder;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
use tokio::runtime;

use super::ours::text;
use super::{HEADER_LIST_BYTES, Request, STREAMS, Seen, Sent, WINDOWS};

/// More than both sides ever have to say.
const PIPE_BYTES: usize = 1 << 20;
/// Polls after which nothing happens any more.
const IDLE_POLLS: usize = 8;

type Requests = Arc<Mutex<BTreeMap<u32, Request>>>;

/// Serves what a client sends, and answers nothing.
pub(super) fn serve(bytes: &[u8]) -> Seen {
    let runtime = runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let (mut client, server) = duplex(PIPE_BYTES);
        client.write_all(bytes).await.unwrap();
        let requests = Requests::default();
        let serving = tokio::spawn(accept(server, Arc::clone(&requests)));
        for _ in 0..IDLE_POLLS * 64 {
            tokio::task::yield_now().await;
        }
        let mut sent = vec![0; PIPE_BYTES];
        let mut count = 0;
        // All that it has said up to now: it does not answer, and is there unless it has failed.
        while let Some(Ok(more)) = poll_fn(|cx| {
            let mut reading = Box::pin(client.read(&mut sent[count..]));
            Poll::Ready(match reading.as_mut().poll(cx) {
                Poll::Ready(read) => Some(read),
                Poll::Pending => None,
            })
        })
        .await
            && more > 0
        {
            count += more;
        }
        let mut sent = Sent::parse(&sent[..count]);
        // It does not always say so before it closes the connection.
        if serving.is_finished() {
            sent.goaway = sent.goaway.or(serving.await.unwrap());
        } else {
            serving.abort();
        }
        let requests = std::mem::take(&mut *requests.lock());
        Seen { requests, sent }
    })
}

/// The code of the fault that ends the connection.
async fn accept(server: tokio::io::DuplexStream, requests: Requests) -> Option<u32> {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEADER_LIST_BYTES)
        .initial_window_size(WINDOWS.0)
        .initial_connection_window_size(WINDOWS.1)
        .max_pending_accept_reset_streams(1 << 20)
        .max_local_error_reset_streams(None);
    let code = |error: &h2::Error| error.reason().map_or(1, u32::from);
    let mut connection = match builder.handshake::<_, bytes::Bytes>(server).await {
        Ok(connection) => connection,
        Err(error) => return Some(code(&error)),
    };
    // Kept, as a call that nobody answers is reset.
    let mut answers = Vec::new();
    loop {
        let (request, answer) = match connection.accept().await? {
            Ok(call) => call,
            Err(error) if error.is_remote() => return None,
            Err(error) => return Some(code(&error)),
        };
        let (parts, mut body) = request.into_parts();
        let stream = u32::from(body.stream_id());
        let head = text(&parts);
        requests.lock().insert(stream, Request { head, ..Request::default() });
        answers.push(answer);
        let requests = Arc::clone(&requests);
        tokio::spawn(async move {
            let end = loop {
                match body.data().await {
                    Some(Ok(bytes)) => {
                        let _ = body.flow_control().release_capacity(bytes.len());
                        let mut requests = requests.lock();
                        if let Some(request) = requests.get_mut(&stream) {
                            request.body.extend_from_slice(&bytes);
                        }
                    }
                    Some(Err(error)) => break Err(error),
                    None => break body.trailers().await.map(|_| ()),
                }
            };
            let mut requests = requests.lock();
            match end {
                Ok(()) => _ = requests.entry(stream).and_modify(|request| request.ended = true),
                Err(_) => _ = requests.remove(&stream),
            }
        });
    }
}
