//! A TCP proxy before Redis that delays replies, falls silent or resets connections. It runs on a
//! thread of its own, so that a busy test does not delay it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

/// The p99 of the standard normal distribution.
const P99_OF_NORMAL: f64 = 2.326;

/// The delay of replies.
#[derive(Clone, Copy, Debug)]
pub enum Delay {
    None,
    /// Half of them take longer than `p50`, one in a hundred longer than `p99`.
    LogNormal {
        p50: Duration,
        p99: Duration,
    },
    /// One in `one_in` takes so long.
    Rarely {
        one_in: u64,
        delay: Duration,
    },
}

impl Delay {
    fn draw(self, random: &mut fastrand::Rng) -> Duration {
        match self {
            Self::None => Duration::ZERO,
            Self::LogNormal { p50, p99 } => {
                // Box-Muller.
                let (u, v) = (random.f64().max(f64::MIN_POSITIVE), random.f64());
                let normal = (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos();
                p50.mul_f64(p99.div_duration_f64(p50).powf(normal / P99_OF_NORMAL))
            }
            Self::Rarely { one_in, delay } => {
                if random.u64(0..one_in) == 0 {
                    delay
                } else {
                    Duration::ZERO
                }
            }
        }
    }
}

/// The state of the way to the server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Way {
    Open,
    /// Connections are accepted and stay open, and nothing goes through.
    Silent,
    /// Every connection is reset.
    Cut,
}

/// A proxy; dropped, it ends.
pub struct Proxy {
    port: u16,
    delay: Arc<Mutex<Delay>>,
    way: watch::Sender<Way>,
    _ends: std::sync::mpsc::Sender<()>,
}

impl Proxy {
    /// A proxy before the server on `port`.
    pub fn start(port: u16) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let own = listener.local_addr().unwrap().port();
        let delay = Arc::new(Mutex::new(Delay::None));
        let (way, seen) = watch::channel(Way::Open);
        let (ends, ended) = std::sync::mpsc::channel();
        let shared = Arc::clone(&delay);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap();
            runtime.spawn(accept(listener, port, shared, seen));
            // Until the sender is dropped.
            let _ = ended.recv();
            runtime.shutdown_background();
        });
        Self { port: own, delay, way, _ends: ends }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn delay(&self, delay: Delay) {
        *self.delay.lock() = delay;
    }

    /// Resets every connection, and each new one once it is accepted.
    pub fn cut(&self) {
        self.way.send_replace(Way::Cut);
    }

    /// Holds back what is sent on every connection, and on new ones.
    pub fn silence(&self) {
        self.way.send_replace(Way::Silent);
    }

    /// Opens the way again. What was held back arrives late.
    pub fn mend(&self) {
        self.way.send_replace(Way::Open);
    }
}

async fn accept(
    listener: std::net::TcpListener,
    port: u16,
    delay: Arc<Mutex<Delay>>,
    way: watch::Receiver<Way>,
) {
    let listener = TcpListener::from_std(listener).unwrap();
    while let Ok((mut client, _)) = listener.accept().await {
        let (delay, way) = (Arc::clone(&delay), way.clone());
        tokio::spawn(async move {
            let mut cut = way.clone();
            tokio::select! {
                biased;
                _ = cut.wait_for(|way| *way == Way::Cut) => {
                    // A close is then a reset.
                    client.set_zero_linger().unwrap();
                }
                () = relay(&mut client, port, delay, way) => {}
            }
        });
    }
}

async fn relay(
    client: &mut TcpStream,
    port: u16,
    delay: Arc<Mutex<Delay>>,
    mut way: watch::Receiver<Way>,
) {
    if !is_open(&mut way).await {
        return;
    }
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    tokio::select! {
        () = forward(from_client, to_server, way.clone()) => {}
        () = forward_late(from_server, to_client, delay, way) => {}
    }
}

/// Waits while the way is silent. Returns false if the proxy has ended.
async fn is_open(way: &mut watch::Receiver<Way>) -> bool {
    way.wait_for(|way| *way != Way::Silent).await.is_ok()
}

async fn forward(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, mut way: watch::Receiver<Way>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if !is_open(&mut way).await || to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

/// Replies keep their order: each is delivered when it and those before are due.
async fn forward_late(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    delay: Arc<Mutex<Delay>>,
    mut way: watch::Receiver<Way>,
) {
    let (sender, mut due) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let read = async {
        let mut random = fastrand::Rng::new();
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            let drawn = delay.lock().draw(&mut random);
            if sender.send((Instant::now() + drawn, buffer[..count].to_vec())).is_err() {
                return;
            }
        }
    };
    let write = async {
        while let Some((at, bytes)) = due.recv().await {
            sleep_until(at).await;
            if !is_open(&mut way).await || to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = read => {}
        () = write => {}
    }
}
