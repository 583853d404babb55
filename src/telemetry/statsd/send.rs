//! The way to the statsd server: one TCP connection that is opened again for ever, or UDP.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpStream, UdpSocket, lookup_host};
use tokio::time::timeout;

use super::settings::{Protocol, StatsdSettings};
use crate::settings::HostPort;

/// The longest that a report may take. A server that does not read holds up nothing but this.
const MAX_TIME: Duration = Duration::from_secs(5);

/// Bytes of lines in one datagram. More could be cut into packets, of which one may be lost.
const MAX_DATAGRAM: usize = 1_432;

/// Reads before a report. A server that says more than they hold is none of statsd.
const MAX_READS: usize = 16;

/// Sends lines.
#[derive(Debug)]
pub(super) struct Sender {
    address: HostPort,
    transport: Protocol,
    patience: Duration,
    stream: Option<TcpStream>,
    /// The server took the last lines; one log line for each change.
    up: bool,
}

impl Sender {
    pub(super) fn new(settings: &StatsdSettings, address: HostPort) -> Self {
        let patience = settings.interval.min(MAX_TIME);
        Self { address, transport: settings.transport(), patience, stream: None, up: true }
    }

    /// Sends `lines`; how many did not reach the server, as far as that can be known.
    pub(super) async fn send(&mut self, lines: &[String]) -> u64 {
        if lines.is_empty() {
            return 0;
        }
        let patience = self.patience;
        let sent = async {
            match self.transport {
                Protocol::Tcp => self.over_tcp(lines).await,
                Protocol::Udp => self.over_udp(lines).await,
            }
        };
        let sent = timeout(patience, sent).await.unwrap_or_else(|_| Err(late(patience)));
        self.note(sent.as_ref().err());
        if sent.is_ok() {
            return 0;
        }
        // A part of a line may be on its way, so nothing can follow it.
        self.stream = None;
        lines.len() as u64
    }

    async fn over_tcp(&mut self, lines: &[String]) -> io::Result<()> {
        let mut stream = match self.stream.take().filter(is_open) {
            Some(stream) => stream,
            None => TcpStream::connect((&*self.address.host, self.address.port)).await?,
        };
        stream.write_all(lines.concat().as_bytes()).await?;
        self.stream = Some(stream);
        Ok(())
    }

    /// Looks the address up each time: there is no connection that would end when it changes.
    async fn over_udp(&self, lines: &[String]) -> io::Result<()> {
        let mut found = lookup_host((&*self.address.host, self.address.port)).await?;
        let to = found.next().ok_or_else(|| io::Error::other("the name has no address"))?;
        let any: SocketAddr = match to {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any).await?;
        socket.connect(to).await?;
        for datagram in datagrams(lines) {
            socket.send(datagram.as_bytes()).await?;
        }
        Ok(())
    }

    fn note(&mut self, error: Option<&io::Error>) {
        let address = &self.address;
        match error {
            Some(error) if self.up => {
                let hint = "check statsd.address and statsd.protocol";
                tracing::warn!(%address, %error, hint, "statistics do not reach the statsd server");
            }
            None if !self.up => tracing::info!(%address, "statistics reach the statsd server"),
            _ => {}
        }
        self.up = error.is_none();
    }
}

fn late(patience: Duration) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("not sent in {patience:?}"))
}

/// False if the server has closed its side. Without this look, what is written next would be lost
/// without an error.
fn is_open(stream: &TcpStream) -> bool {
    let mut unasked = [0; 512];
    for _ in 0..MAX_READS {
        match stream.try_read(&mut unasked) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
        }
    }
    false
}

/// The lines in as few datagrams as hold them.
fn datagrams(lines: &[String]) -> Vec<String> {
    let mut datagrams: Vec<String> = Vec::new();
    for line in lines {
        match datagrams.last_mut() {
            Some(last) if last.len() + line.len() <= MAX_DATAGRAM => last.push_str(line),
            _ => datagrams.push(line.clone()),
        }
    }
    datagrams
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_hold_whole_lines() {
        let lines: Vec<String> = (0..100).map(|i| format!("name.{i:0100}:1|c\n")).collect();
        let datagrams = datagrams(&lines);
        assert_eq!(datagrams.concat(), lines.concat());
        assert!(datagrams.iter().all(|datagram| datagram.len() <= MAX_DATAGRAM));
        assert_eq!(datagrams.len(), 8);
    }
}
