//! Memory of idle connections and of open streams, with the lean engine beside hyper.

use std::net::SocketAddr;

use bytes::{BufMut as _, Bytes, BytesMut};
use h2::SendStream;
use h2::client::{ResponseFuture, SendRequest};
use http::Request;
use prost::Message as _;
use tokio::net::TcpStream;
use tokio::runtime::Builder;

use crate::memory::{request, resident};
use crate::rows::TOKEN_BUCKET;
use crate::servers::{Engine, Gate};
use crate::store::Store;
use crate::table::{Line, Target};

/// Idle connections, below the bound of one address.
const IDLE: usize = 900;
/// Connections with open streams, and streams of each, below the bounds of one address.
const BUSY: usize = 20;
const STREAMS: usize = 400;
/// Streams stay open while they are counted.
const PATIENT: &str = "listeners.message_timeout=10m";

/// The rows.
pub const NAMES: [&str; 2] = ["memory-connection-engines", "memory-stream-engines"];

/// Those that are wanted.
pub fn lines(wanted: impl Fn(&str) -> bool) -> Vec<Line> {
    let [connection, stream] = NAMES;
    let mut lines = Vec::new();
    if wanted(connection) {
        let what = "resident memory per idle connection that has made a call";
        lines.push(line(connection, what, idle_connection));
    }
    if wanted(stream) {
        let what = "resident memory per open stream that waits for its message";
        lines.push(line(stream, what, open_stream));
    }
    lines
}

/// Bytes of the lean engine / bytes of hyper.
fn line(name: &str, what: &str, bytes: fn(Engine) -> f64) -> Line {
    let refusal = |engine| Gate::memory(TOKEN_BUCKET).by(engine).refusal();
    let refused = refusal(Engine::Lean).or_else(|| refusal(Engine::Hyper));
    let (figure, absolute) = if let Some(refused) = refused {
        (Err(format!("not built: {refused}")), String::new())
    } else {
        let (lean, hyper) = (bytes(Engine::Lean), bytes(Engine::Hyper));
        (Ok(lean / hyper), format!("{lean:.0} bytes against {hyper:.0}"))
    };
    eprintln!("{name}: {figure:?} {absolute}");
    Line {
        name: name.to_owned(),
        what: format!("{what}, engine lean / hyper"),
        figure,
        target: Target::AtMost(1.0),
        absolute,
    }
}

fn idle_connection(engine: Engine) -> f64 {
    growth(engine, IDLE, async |address| {
        let mut held = Vec::new();
        for _ in 0..IDLE {
            let mut caller = connect(address).await;
            call(&mut caller).await;
            held.push(caller);
        }
        held
    })
}

fn open_stream(engine: Engine) -> f64 {
    growth(engine, BUSY * STREAMS, async |address| {
        let mut held = Vec::new();
        for _ in 0..BUSY {
            let caller = connect(address).await;
            for _ in 0..STREAMS {
                let mut caller = caller.clone().ready().await.unwrap();
                held.push(caller.send_request(head(address), false).unwrap());
            }
            // Its answer comes after the heads before it are read.
            call(&mut caller.clone()).await;
        }
        held
    })
}

/// Bytes that the process has more, for each of `count`, while what `hold` returns is held.
fn growth<T>(engine: Engine, count: usize, hold: impl AsyncFn(SocketAddr) -> T) -> f64 {
    let tollgate = Gate::memory(TOKEN_BUCKET).by(engine).start(&Store::Memory, &[PATIENT]);
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut first = connect(tollgate.at.grpc).await;
        call(&mut first).await;
        let before = resident(&tollgate);
        let held = hold(tollgate.at.grpc).await;
        let bytes = (resident(&tollgate) - before) / count as f64;
        drop(held);
        bytes
    })
}

async fn connect(address: SocketAddr) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (caller, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(async { _ = connection.await });
    caller.ready().await.unwrap()
}

fn head(address: SocketAddr) -> Request<()> {
    Request::post(format!(
        "http://{address}/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
    ))
    .header("content-type", "application/grpc")
    .header("te", "trailers")
    .body(())
    .unwrap()
}

/// One call to its end.
async fn call(caller: &mut SendRequest<Bytes>) {
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let (answer, mut message): (ResponseFuture, SendStream<Bytes>) =
        caller.send_request(head(address), false).unwrap();
    message.send_data(framed(), true).unwrap();
    let mut body = answer.await.unwrap().into_body();
    while let Some(data) = body.data().await {
        let bytes = data.unwrap().len();
        body.flow_control().release_capacity(bytes).unwrap();
    }
    let trailers = body.trailers().await.unwrap().expect("grpc-status");
    assert_eq!(trailers["grpc-status"], "0", "{trailers:?}");
}

fn framed() -> Bytes {
    let message = request(0..1).encode_to_vec();
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(message.len().try_into().unwrap());
    framed.put_slice(&message);
    framed.freeze()
}
