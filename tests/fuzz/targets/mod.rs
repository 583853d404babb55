//! The targets: each takes bytes of any kind, gives them to the code that reads such input, and
//! panics where a promise does not hold.
//!
//! `cargo fuzz` and the tests call the same functions. None of them keeps state that the next call
//! could see, so an input that fails once fails again.

pub mod decision;
pub mod framing;
pub mod http2;
pub mod json;
pub mod page_token;
pub mod policy;
pub mod records;
pub mod replies;
pub mod settings;
pub mod state;
pub mod timeout;

mod chunks;
mod redis_server;
mod script;
#[path = "../../store/state.rs"]
mod stored;
mod world;
