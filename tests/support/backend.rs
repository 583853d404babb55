//! A real sample backend, as a process on a free port of loopback.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::wait::until;

/// A backend that can be killed and come back; killed when dropped.
pub struct Backend {
    instance: String,
    pub at: SocketAddr,
    child: Child,
    dir: TempDir,
}

impl Backend {
    pub async fn start(instance: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let (child, at) = spawn(instance, any, &dir).await;
        Self { instance: instance.to_owned(), at, child, dir }
    }

    /// Lets it answer so many requests of the API in a second; 0: any number.
    pub async fn set_capacity(&self, per_second: u32) {
        let path = format!("/capacity/{per_second}");
        let mut stream = tokio::net::TcpStream::connect(self.at).await.unwrap();
        let request = format!(
            "PUT {path} HTTP/1.1\r\nhost: b\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    }

    /// As a crash: nothing is finished, connections are reset.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again where it was.
    pub async fn restart(&mut self) {
        self.kill();
        (self.child, self.at) = spawn(&self.instance, self.at, &self.dir).await;
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn spawn(instance: &str, listen: SocketAddr, dir: &TempDir) -> (Child, SocketAddr) {
    let ready = dir.path().join("ready.json");
    drop(std::fs::remove_file(&ready));
    let mut child = Command::new(env!("CARGO_BIN_EXE_sample-backend"))
        .args(["--listen", &listen.to_string(), "--instance", instance, "--ready-file"])
        .arg(&ready)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let address = until("sample-backend is ready", async || {
        let ended = child.try_wait().unwrap();
        assert!(ended.is_none(), "{instance} ended: {ended:?}");
        let text = std::fs::read_to_string(&ready).ok()?;
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        Some(value["http"].as_str().unwrap().parse().unwrap())
    });
    let address = address.await;
    (child, address)
}
