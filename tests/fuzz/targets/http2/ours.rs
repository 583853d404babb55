//! The connection of tollgate.

use bytes::Bytes;
use http::request::Parts;
use tollgate::http2::frame::PREFACE;
use tollgate::http2::{Connection, Event, Limits};

use super::{HEADER_LIST_BYTES, Request, STREAMS, Seen, Sent, WINDOWS};

/// A head as text.
#[derive(Debug)]
pub(super) struct Head(String);

impl From<Parts> for Head {
    fn from(parts: Parts) -> Self {
        Self(text(&parts))
    }
}

/// Method, URI and headers, in order.
pub(super) fn text(parts: &Parts) -> String {
    format!("{} {} {:?}", parts.method, parts.uri, parts.headers)
}

/// Serves what a client sends in these pieces, and answers nothing.
pub(super) fn serve(chunks: impl IntoIterator<Item = Bytes>) -> Seen {
    let mut connection = Connection::<Head>::new(Limits {
        streams: STREAMS,
        header_bytes: HEADER_LIST_BYTES,
        stream_window: WINDOWS.0,
        connection_window: WINDOWS.1,
        resets_in_a_turn: usize::MAX,
        faults: usize::MAX,
    });
    let (mut seen, mut read, mut skipped) = (Seen::default(), Vec::new(), 0);
    connection.begin_turn();
    'all: for chunk in chunks {
        read.extend_from_slice(&chunk);
        let preface = (PREFACE.len() - skipped).min(read.len());
        read.drain(..preface);
        skipped += preface;
        let mut input = &*read;
        loop {
            match connection.next(&mut input) {
                Ok(Some(event)) => note(&mut seen, &mut connection, event),
                Ok(None) => break,
                Err(_) => break 'all,
            }
        }
        read = input.to_vec();
    }
    seen.sent = Sent::parse(connection.output());
    seen
}

fn note(seen: &mut Seen, connection: &mut Connection<Head>, event: Event<'_, Head>) {
    match event {
        Event::Request { stream, head, body } => {
            let ended = body.is_some();
            let body = body.unwrap_or_default().to_vec();
            let request = Request { head: head.0.clone(), body, ended };
            assert!(seen.requests.insert(stream, request).is_none(), "{stream} twice");
        }
        Event::Data { stream, bytes, end } => {
            let request = seen.requests.get_mut(&stream).expect("the request before its body");
            assert!(!request.ended, "bytes after the end of {stream}");
            request.body.extend_from_slice(bytes);
            request.ended = end;
            connection.release(stream, bytes.len());
        }
        // Nobody waits for the rest.
        Event::Reset { stream } => _ = seen.requests.remove(&stream),
    }
}
