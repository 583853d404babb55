//! The byte stream of a connection: TCP or a Unix domain socket.

use tokio::io::{AsyncRead, AsyncWrite};

/// A bidirectional byte stream.
pub(crate) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}
