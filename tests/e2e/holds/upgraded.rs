//! Connections and streams that become websockets.

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Empty;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::ext::Protocol;
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::configuration;
use super::edge::{COST, ESTIMATE, Edge};
use crate::support::wait::until;

fn allow_websockets(envoy: &mut Value) {
    let manager = configuration::manager(envoy);
    manager["upgrade_configs"] = json!([{ "upgrade_type": "websocket" }]);
    manager["http2_protocol_options"]["allow_connect"] = json!(true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn websocket_is_held_until_one_side_closes() {
    let Some(edge) = Edge::start_with(allow_websockets).await else { return };
    for last in ["bye", ""] {
        let (user, before) = (edge.new_user(), edge.calls().await);
        let mut client = upgraded(&edge, &user).await;
        for said in ["one", "two"] {
            assert_eq!(answer(&mut client, said).await, said);
            assert_eq!(edge.taken("edge", &user).await, (1, ESTIMATE), "{said}: it is open");
        }
        assert_eq!(edge.calls().await - before, 1, "nothing is said until it closes");
        let who = if last.is_empty() { "the client closes" } else { "the upstream closes" };
        if !last.is_empty() {
            assert_eq!(answer(&mut client, last).await, "", "{who}");
        }
        drop(client);
        edge.until_settled(who, &user, COST).await;
        assert_eq!(edge.calls().await - before, 2, "{who}");
    }
    edge.assert_all_is_settled().await;
}

/// All streams are of one connection, and each has a hold of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn websocket_over_http_2_is_held_until_one_side_closes() {
    let Some(edge) = Edge::start_with(allow_websockets).await else { return };
    let (mut connection, other) = (extended(&edge).await, edge.new_user());
    let mut stays = connected(&mut connection, &other).await;
    for last in ["bye", ""] {
        let (user, before) = (edge.new_user(), edge.calls().await);
        let settled = edge.holds("settled");
        let mut client = connected(&mut connection, &user).await;
        for said in ["one", "two"] {
            assert_eq!(answer(&mut client, said).await, said);
            assert_eq!(edge.taken("edge", &user).await, (1, ESTIMATE), "{said}: it is open");
        }
        assert_eq!(edge.calls().await - before, 1, "nothing is said until it closes");
        let who = if last.is_empty() { "the client resets it" } else { "the upstream closes" };
        if last.is_empty() {
            drop(client);
        } else {
            assert_eq!(answer(&mut client, last).await, "", "{who}");
        }
        edge.until_settled(who, &user, COST).await;
        assert_eq!(edge.calls().await - before, 2, "{who}: one call at the end");
        // A slot and tokens.
        edge.until_holds("settled", settled + 2).await;
        assert_eq!(answer(&mut stays, "more").await, "more", "{who}: the other is open");
        assert_eq!(edge.taken("edge", &other).await, (1, ESTIMATE), "{who}");
    }
    drop((stays, connection));
    edge.until_settled("the connection closes", &other, COST).await;
    edge.assert_all_is_settled().await;
}

/// The connection after the upgrade.
async fn upgraded(edge: &Edge, user: &str) -> TcpStream {
    let mut stream = TcpStream::connect(edge.envoy.edge).await.unwrap();
    let request = format!(
        "GET /api/upgrade HTTP/1.1\r\nhost: edge\r\nx-user: {user}\r\n\
         upgrade: websocket\r\nconnection: upgrade\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        assert!(stream.read_buf(&mut head).await.unwrap() > 0, "{}", head.escape_ascii());
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", head.escape_ascii());
    stream
}

/// A connection of HTTP/2 on which the edge takes websockets (RFC 8441).
async fn extended(edge: &Edge) -> SendRequest<Empty<Bytes>> {
    let stream = TcpStream::connect(edge.envoy.edge).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let is_told = async || connection.is_extended_connect_protocol_enabled().then_some(());
    until("the edge says that it takes websockets", is_told).await;
    tokio::spawn(async { drop(connection.await) });
    sender
}

/// A stream of the connection that has become a websocket.
async fn connected(connection: &mut SendRequest<Empty<Bytes>>, user: &str) -> TokioIo<Upgraded> {
    let request = Request::builder()
        .method(Method::CONNECT)
        .uri("http://edge/api/upgrade")
        .header("x-user", user)
        .extension(Protocol::from_static("websocket"))
        .body(Empty::new())
        .unwrap();
    connection.ready().await.unwrap();
    let answer = connection.send_request(request).await.unwrap();
    assert_eq!(answer.status(), 200, "{answer:?}");
    TokioIo::new(hyper::upgrade::on(answer).await.unwrap())
}

/// The bytes that come back next; none if the other side has closed.
async fn answer(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), said: &str) -> String {
    stream.write_all(said.as_bytes()).await.unwrap();
    let mut answer = vec![0; 64];
    let length = stream.read(&mut answer).await.unwrap_or(0);
    String::from_utf8(answer[..length].to_vec()).unwrap()
}
