//! Peers that are refused: at once, with one line in the log that says why, however often they
//! come.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tollgate::edge::pb::rate_limit_service_client::RateLimitServiceClient;

use crate::house::{House, connect, trusting};
use crate::support::certs::{Authority, Pair};
use crate::support::grpc::Client;
use crate::support::tollgate::{Tollgate, request};

/// The time in which a peer knows that it is refused.
const AT_ONCE: Duration = Duration::from_secs(2);

/// A call whose connection, or itself, fails at once; the reason as the peer sees it.
async fn failure(tollgate: &Tollgate, config: tonic::transport::ClientTlsConfig) -> String {
    let begun = Instant::now();
    let failed = match connect(tollgate.at.grpc, config).await {
        Err(error) => format!("{error:?}"),
        // With TLS 1.3 a client learns after its own handshake that it is refused.
        Ok(channel) => {
            let mut client: Client = RateLimitServiceClient::new(channel);
            let answer = client.should_rate_limit(request("d", &[&[("k", "v")]])).await;
            format!("{:?}", answer.expect_err("refused"))
        }
    };
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    failed
}

/// Waits until at least so many refusals for this reason are counted; its one line in the log.
fn refused(tollgate: &Tollgate, listener: &str, reason: &str, times: usize) -> String {
    let series = format!(
        "tollgate_connections_refused_total{{listener=\"{listener}\",reason=\"{reason}\"}}"
    );
    tollgate.wait_for_metric(&series, times as f64);
    let mark = format!("\"reason\":\"{reason}\"");
    tollgate.wait_for_log(&mark);
    let lines = tollgate.log().into_iter().filter(|line| line.contains(&mark));
    let lines = lines.collect::<Vec<_>>();
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines.into_iter().next().unwrap()
}

#[tokio::test]
async fn certificates_that_do_not_fit_are_refused_and_named() {
    let house = House::new();
    let tollgate =
        house.mutual(&["grpc"]).set("grpc.tls.client_san=spiffe://mesh/ns/edge/*").start();
    let dir = house.dir.path();
    let good = "spiffe://mesh/ns/edge/sa/envoy";
    let stranger = Authority::new("stranger").issue(dir, "stranger", &[good]);
    let expired = house.authority.issue_expired(dir, "expired", &[good]);
    let wrong = house.pair(&["spiffe://mesh/ns/other/sa/envoy"]);
    let table: [(Option<&Pair>, &str, &str); 4] = [
        (None, "no_certificate", "it needs one of an authority in client_ca_file"),
        (Some(&stranger), "unknown_authority", "signed by no authority in client_ca_file"),
        (Some(&expired), "expired", "has expired"),
        (Some(&wrong), "wrong_name", "is for spiffe://mesh/ns/other/sa/envoy, and client_san"),
    ];
    for (pair, reason, text) in table {
        for _ in 0..3 {
            failure(&tollgate, house.caller(pair)).await;
        }
        let line = refused(&tollgate, "grpc", reason, 3);
        assert!(line.contains(text) && line.contains("127.0.0.1:"), "{line}");
    }
    let fits = house.pair(&[good]);
    crate::house::client(&tollgate, house.caller(Some(&fits))).await;
    // Of its own certificate, too.
    let other = Authority::new("other").file(dir.join("other.crt"));
    let said = failure(&tollgate, trusting(&other, Some(&fits))).await;
    assert!(said.contains("UnknownIssuer"), "{said}");
    let line = refused(&tollgate, "grpc", "refused_by_peer", 1);
    assert!(line.contains("does it trust its authority"), "{line}");
    assert!(tollgate.errors().is_empty(), "{:?}", tollgate.errors());
}

/// Sends bytes; the time until the server has closed the connection.
fn closed_after(address: SocketAddr, bytes: &[u8]) -> Duration {
    let begun = Instant::now();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    // A reset is an end, too.
    drop(stream.read_to_end(&mut answer));
    begun.elapsed()
}

#[tokio::test]
async fn protocols_that_do_not_fit_the_port_are_refused_and_named() {
    let house = House::new();
    let tls = house.tollgate(&["grpc", "admin"]).start();
    for preface in [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], b"GET / HTTP/1.1\r\n\r\n"] {
        assert!(closed_after(tls.at.grpc, preface) < AT_ONCE);
    }
    let line = refused(&tls, "grpc", "plain_text", 2);
    assert!(line.contains("does not speak TLS"), "{line}");
    assert!(closed_after(tls.at.admin, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") < AT_ONCE);
    tls.wait_for_metric(
        "tollgate_connections_refused_total{listener=\"admin\",reason=\"plain_text\"}",
        1.0,
    );

    let plain = crate::support::tollgate::Options::serving(crate::house::POLICIES).start();
    failure(&plain, house.caller(None)).await;
    let line = refused(&plain, "grpc", "unexpected_tls", 1);
    assert!(line.contains("set its tls.cert_file"), "{line}");
    // A record of the handshake of TLS 1.2.
    assert!(closed_after(plain.at.http, &[0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0]) < AT_ONCE);
    plain.wait_for_metric(
        "tollgate_connections_refused_total{listener=\"http\",reason=\"unexpected_tls\"}",
        1.0,
    );
}

#[tokio::test]
async fn old_versions_and_other_protocols_are_refused_and_named() {
    let house = House::new();
    let tollgate = house.tollgate(&["grpc"]).start();
    let hello = |args: &str| {
        let command = format!("s_client -connect {} {args}", tollgate.at.grpc);
        let mut openssl = Command::new("openssl");
        openssl.args(command.split(' ')).stdin(Stdio::null());
        let output = openssl.output().expect("openssl, which ca-certificates needs");
        assert!(!output.status.success(), "{args}: {output:?}");
    };
    hello("-tls1_1 -cipher DEFAULT@SECLEVEL=0");
    let line = refused(&tollgate, "grpc", "old_version", 1);
    assert!(line.contains("no version of TLS from 1.2 on"), "{line}");
    hello("-tls1_3 -alpn http/1.1");
    let line = refused(&tollgate, "grpc", "incompatible", 1);
    assert!(line.contains("ALPN"), "{line}");
}

#[tokio::test]
async fn peers_that_do_not_finish_their_handshake_are_closed() {
    let house = House::new();
    let tollgate = house.tollgate(&["grpc"]).set("listeners.handshake_timeout=300ms").start();
    let waited = closed_after(tollgate.at.grpc, &[]);
    assert!((Duration::from_millis(250)..AT_ONCE).contains(&waited), "{waited:?}");
    let line = refused(&tollgate, "grpc", "late", 1);
    assert!(line.contains("listeners.handshake_timeout"), "{line}");
}
