//! The arguments and the reply of the scripts as typed values. Nothing here talks to Redis.
//!
//! [`layout`] declares both, and the states; `lua/` has the scripts in parts. A group is encoded
//! once by its caller ([`Encoded::new`]), joined with others to a [`Frame`], and its share of the
//! reply becomes readings again in [`readings`]. An [`AmendFrame`] has amendments for the second
//! script, which decides nothing. Products that need 128 bits are worked out here: the scripts only
//! add, compare and carry.

mod amend;
mod arguments;
mod distinct;
mod encoded;
mod frame;
mod inline;
pub mod layout;
mod reply;

use redis::Cmd;

pub use self::amend::{AmendFrame, MAX_AMENDMENTS, outcome};
pub use self::encoded::Encoded;
pub use self::frame::Frame;
pub use self::reply::{Integers, Reply, readings};

/// Takes the time from the server that runs the script.
const SERVER_TIME: &str = include_str!("script/lua/server_time.lua");
/// Takes the time and `keep_ms` from two further arguments.
const MANUAL_TIME: &str = include_str!("script/lua/manual_time.lua");

/// The text of a script without a head, as it is written.
#[derive(Clone, Copy, Debug)]
pub struct Parts {
    /// File name and text of each part, in the order in which they are joined.
    pub files: &'static [(&'static str, &'static str)],
    /// The parts joined to one chunk.
    pub text: &'static str,
}

/// Lists the parts of a script, and joins them.
macro_rules! parts {
    ($($name:literal),+ $(,)?) => {
        Parts {
            files: &[$(($name, include_str!(concat!("script/lua/", $name)))),+],
            text: concat!($(include_str!(concat!("script/lua/", $name))),+),
        }
    };
}

/// A script: a head that sets the time, and its parts.
#[derive(Debug)]
pub struct Script {
    text: String,
    /// SHA-1 in hexadecimal, under which Redis keeps the script.
    hash: String,
}

impl Script {
    /// The script that decides groups.
    pub const DECIDE: Parts = parts!(
        "10_layout.lua",
        "11_single.lua",
        "12_formats.lua",
        "20_read.lua",
        "30_span.lua",
        "40_lease.lua",
        "41_holds.lua",
        "50_token_bucket.lua",
        "51_sliding_window.lua",
        "52_fixed_window.lua",
        "53_concurrency.lua",
        "60_group.lua",
        "70_write.lua",
    );

    /// The script that applies amendments. A script of its own, because its functions would cost
    /// every decision.
    pub const AMEND: Parts = parts!(
        "10_layout.lua",
        "12_formats.lua",
        "20_read.lua",
        "30_span.lua",
        "40_lease.lua",
        "41_holds.lua",
        "50_token_bucket.lua",
        "51_sliding_window.lua",
        "52_fixed_window.lua",
        "61_amend.lua",
        "62_settle.lua",
        "70_write.lua",
    );

    /// The script that decides, as the store runs it: the time is the server's.
    pub fn with_server_time() -> Self {
        Self::new(SERVER_TIME, Self::DECIDE.text)
    }

    /// The script that amends, as the store runs it: the time is the server's.
    pub fn amend_with_server_time() -> Self {
        Self::new(SERVER_TIME, Self::AMEND.text)
    }

    /// A script with the time as an argument, to replay traces. A call needs two further
    /// arguments: the time in microseconds since 1970, and by how many milliseconds keys outlive
    /// their state, because they expire by the server's clock. `body` is the text of parts, or a
    /// changed one whose faults a test must find.
    pub fn with_manual_time(body: &str) -> Self {
        Self::new(MANUAL_TIME, body)
    }

    fn new(head: &str, body: &str) -> Self {
        let text = [head, &inline::constants(body)].concat();
        let hash = redis::Script::new(&text).get_hash().to_owned();
        Self { text, hash }
    }

    /// Loads the script into a server.
    pub fn load(&self) -> Cmd {
        let mut command = redis::cmd("SCRIPT");
        command.arg("LOAD").arg(&self.text);
        command
    }

    /// The text that Redis runs.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The name under which Redis keeps the script.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Writes the command that runs the script, already loaded, on `frame`.
    pub(super) fn call(&self, frame: &Frame, out: &mut Vec<u8>) {
        frame.write(b"EVALSHA", self.hash.as_bytes(), out);
    }

    /// Writes the command that loads the script and runs it on `frame`.
    pub(super) fn call_with_text(&self, frame: &Frame, out: &mut Vec<u8>) {
        frame.write(b"EVAL", self.text.as_bytes(), out);
    }
}
