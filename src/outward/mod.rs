//! Connections to servers of operators: the control plane, the collector of traces, the receiver of
//! events.

mod dial;
mod endpoint;
mod post;

pub(crate) use self::dial::{Dialer, Io, chain};
pub use self::endpoint::Endpoint;
pub(crate) use self::post::Post;
