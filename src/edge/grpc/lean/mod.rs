//! The engine of the gRPC listener that is made for decisions: [`crate::http2`] on a socket.
//!
//! One task serves a connection: it reads many frames at once, decides, and writes many answers at
//! once. A decision that needs no waiting costs no task, no timer and no allocation of HTTP/2.
//!
//! * `driver`: the task of a connection. `calls`: its requests and their answers.
//! * `head`, `message`: a call for a decision. `slots`: calls that wait.
//! * `body`, `reply`: calls of other services, which tonic answers.
//! * `timers`: pings, and messages that do not arrive.

mod body;
mod calls;
mod driver;
mod head;
mod message;
mod reply;
mod slots;
mod timers;

use std::sync::Arc;

use tokio::task::coop::unconstrained;
use tokio_util::sync::CancellationToken;

use self::driver::Driver;
use super::caller::Caller;

use crate::edge::listener::Bounds;
use crate::edge::listener::acceptor::Connection;
use crate::edge::listener::connection::serve_by;
use crate::http2::frame::PREFACE;
use crate::store::LimitStore;

/// Serves one connection of `caller`. Returns when the peer closes it, or when its calls have
/// finished after a graceful shutdown: on `stop`, or at its maximum age.
pub(super) async fn serve<S: LimitStore>(
    connection: Connection,
    bounds: &Bounds,
    caller: Arc<Caller<S>>,
    stop: &CancellationToken,
) {
    let engine = |stream, permit: &_| Driver::new(stream, bounds, caller, permit);
    // It bounds what it does in one go by itself.
    unconstrained(serve_by(connection, (PREFACE, bounds), engine, stop)).await;
}
