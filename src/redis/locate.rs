//! The address of the primary.

use std::fmt;
use std::io;
use std::path::PathBuf;

use redis::ConnectionAddr;
use tokio::net::{TcpStream, UnixStream};

use super::socket::Socket;

/// The method to find the primary before each attempt to connect.
#[derive(Clone, Debug)]
pub(crate) enum Locate {
    /// A fixed address. It may be a name that resolves to another server after a failover.
    Fixed(Address),
}

impl Locate {
    /// The current address of the primary.
    pub(crate) const fn primary(&self) -> &Address {
        match self {
            Self::Fixed(address) => address,
        }
    }
}

impl fmt::Display for Locate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.primary().fmt(f)
    }
}

/// The address of one server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Address {
    /// Host name or IP address, and port.
    Tcp(String, u16),
    /// The path of a Unix domain socket.
    Unix(PathBuf),
}

impl Address {
    /// The address in a URL; `None` if its kind is not supported.
    pub(crate) fn of_url(address: &ConnectionAddr) -> Option<Self> {
        match address {
            ConnectionAddr::Tcp(host, port) => Some(Self::Tcp(host.clone(), *port)),
            ConnectionAddr::Unix(path) => Some(Self::Unix(path.clone())),
            _ => None,
        }
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// Fails if the server does not accept the connection.
    pub(crate) async fn open(&self) -> io::Result<Box<dyn Socket>> {
        match self {
            Self::Tcp(host, port) => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                // With Nagle's algorithm small frames would wait for acknowledgements.
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
            Self::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}
