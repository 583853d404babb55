//! An upstream that ends its answers in every way that Envoy tells apart. Each that it gives says
//! that it cost seven.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// An answer of a hundred bytes, and the cost.
const HEAD: &str = "HTTP/1.1 200 OK\r\nx-tokens: 7\r\ncontent-length: 100\r\n\r\n";

const OK: &str = "HTTP/1.1 200 OK\r\nx-tokens: 7\r\ncontent-length: 2\r\n\r\nok";

pub struct Upstream {
    pub at: SocketAddr,
    asked: Arc<AtomicU64>,
    serves: JoinHandle<()>,
}

impl Upstream {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let asked = Arc::<AtomicU64>::default();
        let counted = Arc::clone(&asked);
        let serves = tokio::spawn(async move {
            let (goes, mut gone) = mpsc::channel(1);
            loop {
                let (stream, _) = tokio::select! {
                    accepted = listener.accept() => accepted.unwrap(),
                    _ = gone.recv() => break,
                };
                tokio::spawn(serve(stream, Arc::clone(&counted), goes.clone()));
            }
            drop(listener);
        });
        Self { at, asked, serves }
    }

    /// The requests that have arrived.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.serves.abort();
    }
}

/// Answers requests without a body by their path, until one ends the connection.
async fn serve(mut stream: TcpStream, asked: Arc<AtomicU64>, goes: mpsc::Sender<()>) -> Option<()> {
    let mut read = Vec::new();
    loop {
        while !read.ends_with(b"\r\n\r\n") {
            if stream.read_buf(&mut read).await.ok()? == 0 {
                return None;
            }
        }
        let head = String::from_utf8(std::mem::take(&mut read)).unwrap();
        let path = head.split(' ').nth(1).unwrap();
        let before = asked.fetch_add(1, Ordering::Relaxed);
        match path.rsplit('/').next().unwrap() {
            "stream" => stream_body(&mut stream).await?,
            "begin" => {
                write(&mut stream, &format!("{HEAD}x")).await?;
                std::future::pending::<()>().await;
            }
            "cut" => {
                write(&mut stream, &format!("{HEAD}x")).await?;
                return None;
            }
            "hang" | "late" => std::future::pending::<()>().await,
            "close" => return None,
            // After this connection nobody listens who could be asked again.
            "go" => {
                goes.send(()).await.ok()?;
                goes.closed().await;
                return None;
            }
            "upgrade" => return echo(stream).await,
            "moved" => {
                let found = "HTTP/1.1 302 Found\r\nlocation: http://edge/api/ok\r\n";
                write(&mut stream, &format!("{found}content-length: 0\r\n\r\n")).await?;
            }
            "trailer" => {
                let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-tokens";
                write(&mut stream, &format!("{head}\r\n\r\n2\r\nok\r\n")).await?;
                write(&mut stream, "0\r\nx-tokens: 7\r\n\r\n").await?;
            }
            // Every third is answered.
            "third" if before % 3 == 2 => write(&mut stream, OK).await?,
            "503" | "third" => {
                write(&mut stream, "HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n").await?;
            }
            _ => write(&mut stream, OK).await?,
        }
    }
}

/// Speaks another protocol from here on, until one side closes or says "bye".
async fn echo(mut stream: TcpStream) -> Option<()> {
    let head = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade";
    write(&mut stream, &format!("{head}\r\nx-tokens: 7\r\n\r\n")).await?;
    let mut said = [0; 64];
    loop {
        let length = stream.read(&mut said).await.ok()?;
        let said = said.get(..length).filter(|said| !said.is_empty() && *said != b"bye")?;
        stream.write_all(said).await.ok()?;
    }
}

async fn stream_body(stream: &mut TcpStream) -> Option<()> {
    let head = "HTTP/1.1 200 OK\r\nx-tokens: 7\r\ntransfer-encoding: chunked\r\n\r\n";
    write(stream, head).await?;
    for _ in 0..5 {
        write(stream, "3\r\nabc\r\n").await?;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    write(stream, "0\r\n\r\n").await
}

async fn write(stream: &mut TcpStream, text: &str) -> Option<()> {
    stream.write_all(text.as_bytes()).await.ok()
}
