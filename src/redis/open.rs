//! Opens the byte stream of a connection.

use std::sync::Arc;

use tokio::net::{TcpStream, UnixStream};

use super::address::Address;
use super::line::{Line, Tracked};
use super::socket::Socket;
use super::tls::Tls;

/// Connects to the address of `line`. Over TCP it uses `tls`, if there is one.
///
/// # Errors
/// Fails with a reason for the operator if the server does not accept the connection.
pub(super) async fn open(line: &Arc<Line>, tls: Option<&Tls>) -> Result<Box<dyn Socket>, String> {
    let track = Arc::clone(line);
    match line.address() {
        Address::Tcp(host, port) => {
            let stream = TcpStream::connect((host.as_str(), *port)).await;
            let stream = stream.map_err(|error| error.to_string())?;
            // With Nagle's algorithm small frames would wait for acknowledgements.
            stream.set_nodelay(true).map_err(|error| error.to_string())?;
            Ok(match tls {
                Some(tls) => Box::new(Tracked::new(tls.connect(stream, host).await?, track)),
                None => Box::new(Tracked::new(stream, track)),
            })
        }
        Address::Unix(path) => {
            let stream = UnixStream::connect(path).await.map_err(|error| error.to_string())?;
            Ok(Box::new(Tracked::new(stream, track)))
        }
    }
}
