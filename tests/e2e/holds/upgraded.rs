//! Connections that become websockets.

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::configuration;
use super::edge::{COST, ESTIMATE, Edge};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn websocket_is_held_until_one_side_closes() {
    let upgrades = json!([{ "upgrade_type": "websocket" }]);
    let start =
        Edge::start_with(|envoy| configuration::manager(envoy)["upgrade_configs"] = upgrades);
    let Some(edge) = start.await else { return };
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

/// The bytes that come back next; none if the other side has closed.
async fn answer(stream: &mut TcpStream, said: &str) -> String {
    stream.write_all(said.as_bytes()).await.unwrap();
    let mut answer = vec![0; 64];
    let length = stream.read(&mut answer).await.unwrap_or(0);
    String::from_utf8(answer[..length].to_vec()).unwrap()
}
