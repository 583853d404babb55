//! A TCP proxy before Redis that delays replies or cuts connections off. It runs on a thread of its
//! own, so that a busy test does not delay it.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

/// The delay of replies.
#[derive(Clone, Copy, Debug)]
pub enum Delay {
    None,
    /// Half of them take longer than `median`; the larger `sigma`, the longer the slowest.
    LogNormal {
        median: Duration,
        sigma: f64,
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
            Self::LogNormal { median, sigma } => {
                // Box-Muller.
                let (u, v) = (random.f64().max(f64::MIN_POSITIVE), random.f64());
                let normal = (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos();
                median.mul_f64((sigma * normal).exp())
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

/// A proxy; dropped, it ends.
pub struct Proxy {
    port: u16,
    delay: Arc<Mutex<Delay>>,
    cut: watch::Sender<bool>,
    _ends: std::sync::mpsc::Sender<()>,
}

impl Proxy {
    /// A proxy before the server on `port`.
    pub fn start(port: u16) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let own = listener.local_addr().unwrap().port();
        let delay = Arc::new(Mutex::new(Delay::None));
        let (cut, is_cut) = watch::channel(false);
        let (ends, ended) = std::sync::mpsc::channel();
        let shared = Arc::clone(&delay);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap();
            runtime.spawn(accept(listener, port, shared, is_cut));
            // Until the sender is dropped.
            let _ = ended.recv();
            runtime.shutdown_background();
        });
        Self { port: own, delay, cut, _ends: ends }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn delay(&self, delay: Delay) {
        *self.delay.lock().unwrap() = delay;
    }

    /// Ends every connection and takes no new one.
    pub fn cut(&self) {
        self.cut.send_replace(true);
    }

    pub fn mend(&self) {
        self.cut.send_replace(false);
    }
}

async fn accept(
    listener: std::net::TcpListener,
    port: u16,
    delay: Arc<Mutex<Delay>>,
    cut: watch::Receiver<bool>,
) {
    let listener = TcpListener::from_std(listener).unwrap();
    while let Ok((client, _)) = listener.accept().await {
        let (delay, mut cut) = (Arc::clone(&delay), cut.clone());
        tokio::spawn(async move {
            if *cut.borrow() {
                return;
            }
            let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
            tokio::select! {
                () = relay(client, server, delay) => {}
                _ = cut.wait_for(|cut| *cut) => {}
            }
        });
    }
}

async fn relay(client: TcpStream, server: TcpStream, delay: Arc<Mutex<Delay>>) {
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        () = forward(from_client, to_server) => {}
        () = forward_late(from_server, to_client, delay) => {}
    }
}

async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

/// Replies keep their order: each is delivered when it and those before are due.
async fn forward_late(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Arc<Mutex<Delay>>) {
    let (sender, mut due) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let read = async {
        let mut random = fastrand::Rng::new();
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            let drawn = delay.lock().unwrap().draw(&mut random);
            if sender.send((Instant::now() + drawn, buffer[..count].to_vec())).is_err() {
                return;
            }
        }
    };
    let write = async {
        while let Some((at, bytes)) = due.recv().await {
            sleep_until(at).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = read => {}
        () = write => {}
    }
}
