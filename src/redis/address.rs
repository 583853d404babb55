//! The address of one server.

use std::fmt;
use std::path::PathBuf;

use crate::settings::HostPort;

/// The address of one server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Address {
    /// Host name or IP address, and port.
    Tcp(String, u16),
    /// The path of a Unix domain socket.
    Unix(PathBuf),
}

impl From<&HostPort> for Address {
    fn from(at: &HostPort) -> Self {
        Self::Tcp(at.host.clone(), at.port)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}
