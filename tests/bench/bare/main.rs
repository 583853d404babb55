//! The ceilings: servers that answer each request with OK and one status, and decide nothing.
//!
//! They are on tonic, on hyper, and on the h2 crate, with the runtimes of tollgate: one per core,
//! connections dealt in turn. hyper and h2 answer with bytes that are encoded once, and decode no
//! message. The distance from tollgate to them is the cost of a decision.

#![allow(clippy::unwrap_used, reason = "a benchmark may panic")]

mod h2;
mod hyper;
mod tonic;

use std::net::{SocketAddr, TcpListener};
use std::thread;

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message as _;
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tollgate::edge::pb::RateLimitResponse;
use tollgate::edge::pb::rate_limit_response::{Code, DescriptorStatus};

/// The windows of tollgate's own listener.
const STREAM_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = 256 << 10;

#[derive(Clone, Copy)]
enum Kind {
    Tonic,
    Hyper,
    H2,
}

/// `bare tonic|hyper|h2 ADDRESS [CORES]`
fn main() {
    let mut args = std::env::args().skip(1);
    let kind = match args.next().as_deref() {
        Some("tonic") => Kind::Tonic,
        Some("hyper") => Kind::Hyper,
        Some("h2") => Kind::H2,
        _ => panic!("bare tonic|hyper|h2 ADDRESS [CORES]"),
    };
    let address: SocketAddr = args.next().unwrap().parse().unwrap();
    let cores: usize = args.next().map_or(1, |cores| cores.parse().unwrap());
    let listener = TcpListener::bind(address).unwrap();
    let doors: Vec<_> = (0..cores)
        .map(|_| {
            let (door, arrivals) = unbounded_channel();
            thread::spawn(move || serve(kind, arrivals));
            door
        })
        .collect();
    for (stream, door) in listener.incoming().zip(doors.iter().cycle()) {
        let stream = stream.unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_nonblocking(true).unwrap();
        door.send(stream).unwrap();
    }
}

fn serve(kind: Kind, mut arrivals: UnboundedReceiver<std::net::TcpStream>) {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        if matches!(kind, Kind::Tonic) {
            return tonic::serve(arrivals).await;
        }
        let answer = answer();
        while let Some(stream) = arrivals.recv().await {
            let (stream, answer) = (TcpStream::from_std(stream).unwrap(), answer.clone());
            match kind {
                Kind::H2 => tokio::spawn(h2::serve(stream, answer)),
                _ => tokio::spawn(hyper::serve(stream, answer)),
            };
        }
    });
}

/// OK with one status.
fn response() -> RateLimitResponse {
    let status = DescriptorStatus { code: Code::Ok.into(), ..DescriptorStatus::default() };
    RateLimitResponse {
        overall_code: Code::Ok.into(),
        statuses: vec![status],
        ..RateLimitResponse::default()
    }
}

/// The response as a gRPC message: a flag, four bytes of length, protobuf.
fn answer() -> Bytes {
    let message = response().encode_to_vec();
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(message.len().try_into().unwrap());
    framed.put_slice(&message);
    framed.freeze()
}
