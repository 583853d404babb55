//! The address of one server.

use std::fmt;
use std::net::IpAddr;
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

impl Address {
    /// True for a Unix domain socket and a loopback address.
    pub(super) fn is_on_this_machine(&self) -> bool {
        match self {
            Self::Tcp(host, _) => {
                let ip = host.parse::<IpAddr>();
                host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
            }
            Self::Unix(_) => true,
        }
    }
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
