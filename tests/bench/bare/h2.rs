//! The ceiling of the h2 crate: its streams without a layer above them.

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Response};
use tokio::net::TcpStream;

use super::{CONNECTION_WINDOW, STREAM_WINDOW};

pub(super) async fn serve(stream: TcpStream, answer: Bytes) {
    let mut builder = h2::server::Builder::new();
    builder.initial_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW);
    let Ok(mut connection) = builder.handshake(stream).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        // A task each: an answer in this loop would be a write of its own.
        tokio::spawn(read_and_send(request.into_body(), respond, answer.clone()));
    }
}

async fn read_and_send(
    mut body: RecvStream,
    respond: SendResponse<Bytes>,
    answer: Bytes,
) -> Result<(), h2::Error> {
    read(&mut body).await?;
    send(respond, answer)
}

/// Reads a message to its end.
async fn read(body: &mut RecvStream) -> Result<(), h2::Error> {
    while let Some(data) = body.data().await {
        let bytes = data?.len();
        body.flow_control().release_capacity(bytes)?;
    }
    Ok(())
}

fn send(mut respond: SendResponse<Bytes>, answer: Bytes) -> Result<(), h2::Error> {
    let mut response = Response::new(());
    let grpc = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert("content-type", grpc);
    let mut stream = respond.send_response(response, false)?;
    stream.send_data(answer, false)?;
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    stream.send_trailers(trailers)
}
