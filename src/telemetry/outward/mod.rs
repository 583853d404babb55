//! Calls to servers of operators' own: the collector of traces, the receiver of events.

mod dial;
mod endpoint;
mod post;

pub(crate) use self::dial::{Dialer, chain};
pub use self::endpoint::Endpoint;
pub(crate) use self::post::Post;
