//! What a peer may take of a listener: connections, streams, headers, time. Others are decided meanwhile.

use std::convert::Infallible;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use tokio_stream::StreamExt as _;
use tollgate::edge::pb::rate_limit_response::Code;

use crate::support::grpc::{Client, SHOULD_RATE_LIMIT, ask, frame, raw_call};
use crate::support::tollgate::{Options, Tollgate, request};

const POLICIES: &str = "
domain: d
descriptors:
  - {key: k, rate_limit: {unit: day, requests_per_unit: 4000000000}}
";

/// Resident memory may grow by so much under all attacks of this file together, in bytes. Most of it is the calls under way.
const MEMORY: u64 = 400 << 20;

/// The longest a peer that was cut off may take to see it.
const PATIENCE: Duration = Duration::from_secs(20);

fn resident(tollgate: &Tollgate) -> u64 {
    let statm = std::fs::read_to_string(format!("/proc/{}/statm", tollgate.pid())).unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4_096
}

/// The 99th percentile of a thousand decisions, one after the other.
async fn p99(client: &mut Client) -> Duration {
    let asked = request("d", &[&[("k", "v")]]);
    let mut times = Vec::new();
    for _ in 0..1_000 {
        let start = Instant::now();
        assert_eq!(ask(client, asked.clone()).await.overall_code(), Code::Ok);
        times.push(start.elapsed());
    }
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

/// HEADERS of a call that has no end, on stream `id`. Source: RFC 9113, section 6.2; RFC 7541, section 6.2.2.
fn headers(id: u32) -> Vec<u8> {
    let mut block = vec![0x83, 0x86, 0x04, u8::try_from(SHOULD_RATE_LIMIT.len()).unwrap()];
    block.extend(SHOULD_RATE_LIMIT.as_bytes());
    block.extend(b"\x01\x01x\x0f\x10\x10application/grpc\x00\x02te\x08trailers");
    let mut frame = u32::try_from(block.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend([1, 4]);
    frame.extend(id.to_be_bytes());
    frame.extend(block);
    frame
}

/// A connection with `streams` calls of which none has a message, as far as the server lets it.
fn open_streams(address: SocketAddr, streams: u32) -> TcpStream {
    let mut peer = TcpStream::connect(address).unwrap();
    peer.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    let mut bytes =
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00".to_vec();
    bytes.extend((0..streams).flat_map(|i| headers(2 * i + 1)));
    for part in bytes.chunks(16_384) {
        // The server may end the connection, and must not have to wait for us to read.
        if peer.write_all(part).is_err() {
            break;
        }
        let _ = peer.read(&mut [0; 16_384]);
    }
    peer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_streams_and_idle_connections_take_bounded_memory_and_hold_up_nobody() {
    let tollgate =
        Options::serving(POLICIES).set("listeners.max_connections_per_peer=5000").start();
    let mut client = tollgate.client().await;
    p99(&mut client).await;
    let (quiet, before) = (p99(&mut client).await, resident(&tollgate));
    let at = tollgate.at.grpc;
    let attack = tokio::task::spawn_blocking(move || {
        let idle: Vec<_> = (0..2_000).map(|_| TcpStream::connect(at).unwrap()).collect();
        let streams: Vec<_> = (0..10).map(|_| open_streams(at, 10_000)).collect();
        (idle, streams)
    });
    let _held = attack.await.unwrap();
    let beside = p99(&mut client).await;
    let grown = resident(&tollgate).saturating_sub(before);
    println!("p99 {quiet:?} -> {beside:?}, {} MB more", grown >> 20);
    assert!(grown < MEMORY, "{} MB more", grown >> 20);
    assert!(beside <= quiet * 3 / 2 + Duration::from_millis(5), "{quiet:?} -> {beside:?}");
}

#[tokio::test]
async fn sixty_kilobytes_of_metadata_are_decided() {
    let tollgate = Options::serving(POLICIES).start();
    let message = frame(false, &request("d", &[&[("k", "v")]]).encode_to_vec());
    let long = "x".repeat(60 << 10);
    let answer = raw_call(tollgate.at.grpc, SHOULD_RATE_LIMIT, &[("x-long", &long)], message).await;
    assert_eq!(answer.response().overall_code(), Code::Ok);
}

#[tokio::test]
async fn message_that_does_not_arrive_ends_its_call() {
    let tollgate = Options::serving(POLICIES).set("listeners.message_timeout=200ms").start();
    let stream = tokio::net::TcpStream::connect(tollgate.at.grpc).await.unwrap();
    let io = TokioIo::new(stream);
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let driver = tokio::spawn(connection);
    let begun = tokio_stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"\0\0")))]);
    let body = StreamBody::new(begun.chain(tokio_stream::pending()));
    let call = http::Request::post(format!("http://x{SHOULD_RATE_LIMIT}"))
        .header("content-type", "application/grpc")
        .body(body)
        .unwrap();
    let answer = tokio::time::timeout(PATIENCE, sender.send_request(call)).await.unwrap().unwrap();
    assert_eq!(answer.headers()["grpc-status"], "4", "{:?}", answer.headers());
    driver.abort();
}

#[tokio::test]
async fn http_body_that_does_not_arrive_is_408() {
    let tollgate = Options::serving(POLICIES).set("listeners.message_timeout=200ms").start();
    let head =
        b"POST /json HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 100\r\n\r\n{";
    let answer = crate::support::http::exchange(tollgate.at.http, head);
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[tokio::test]
async fn silent_peers_are_let_go_on_every_listener() {
    let tollgate = Options::serving(POLICIES).set("listeners.handshake_timeout=200ms").start();
    for address in [tollgate.at.grpc, tollgate.at.admin, tollgate.at.http] {
        let mut peer = TcpStream::connect(address).unwrap();
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut answer = [0; 512];
        // HTTP/1 may say 408 first.
        while peer.read(&mut answer).expect("the end within the patience") > 0 {}
    }
}

#[tokio::test]
async fn connections_beyond_a_bound_are_closed_counted_and_logged_and_places_come_back() {
    for setting in ["listeners.max_connections=3", "listeners.max_connections_per_peer=3"] {
        let tollgate = Options::serving(POLICIES).set(setting).start();
        let connect = || {
            let peer = TcpStream::connect(tollgate.at.grpc).unwrap();
            peer.set_read_timeout(Some(PATIENCE)).unwrap();
            peer
        };
        let mut held: Vec<_> = (0..3).map(|_| connect()).collect();
        assert_eq!(connect().read(&mut [0]).unwrap_or(0), 0, "the fourth is closed");
        let series = "tollgate_connections_refused_total{listener=\"grpc\",reason=\"bound\"}";
        tollgate.wait_for_metric(series, 1.0);
        let name = setting.split('=').next().unwrap();
        assert!(tollgate.wait_for_log("a connection was closed").contains(name));
        held.clear();
        // A place is free once the server has seen the end.
        let asked = request("d", &[&[("k", "v")]]);
        let late = Instant::now() + PATIENCE;
        loop {
            let channel =
                tonic::transport::Endpoint::from_shared(format!("http://{}", tollgate.at.grpc));
            if let Ok(channel) = channel.unwrap().connect().await
                && let Ok(answer) = Client::new(channel).should_rate_limit(asked.clone()).await
            {
                assert_eq!(answer.into_inner().overall_code(), Code::Ok);
                break;
            }
            assert!(Instant::now() < late, "no place came back");
        }
    }
}

#[tokio::test]
async fn request_of_too_many_limits_is_over_its_limit() {
    let limits = (1..=16)
        .map(|i| format!("      - {{unit: second, unit_multiplier: {i}, requests_per_unit: 9}}\n"));
    let node = format!("  - key: k\n    rate_limits:\n{}", limits.collect::<String>());
    let tollgate = Options::serving(&format!("domain: d\ndescriptors:\n{node}")).start();
    let mut client = tollgate.client().await;
    for (descriptors, expected) in [(32, Code::Ok), (33, Code::OverLimit)] {
        let values: Vec<_> = (0..descriptors).map(|i| i.to_string()).collect();
        let entries: Vec<_> = values.iter().map(|value| [("k", value.as_str())]).collect();
        let asked = request("d", &entries.iter().map(|entry| &entry[..]).collect::<Vec<_>>());
        assert_eq!(ask(&mut client, asked).await.overall_code(), expected, "{descriptors}");
    }
    assert_eq!(tollgate.metric("tollgate_out_of_bounds_requests_total"), Some(1.0));
}
