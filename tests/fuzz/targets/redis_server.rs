//! A redis-server on a Unix socket that ends with this process, however this process ends.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis::{Connection, FromRedisValue, Pipeline, RedisResult};

/// The time that a server may take to start.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// Runs the server until the standard input of the shell ends, as it does with the process that
/// holds the other end, also if that one is killed. Then removes what the server has left.
const GUARD: &str = r#"
redis-server --port 0 --unixsocket "$1/socket" --save '' --appendonly no --daemonize no \
    --dir "$1" --logfile "$1/log" &
read -r _
kill $!
wait
rm -rf "$1"
"#;

/// A server and a connection to it.
pub struct RedisServer {
    connection: Connection,
    socket: PathBuf,
    /// The shell. Dropped, its input ends.
    _guard: Child,
}

impl RedisServer {
    /// None without `redis-server` on the path; a failure where `CI` is set.
    pub fn start() -> Option<Self> {
        if !is_installed() {
            assert!(std::env::var_os("CI").is_none(), "redis-server is needed and not installed");
            eprintln!("SKIPPED: the script on states: redis-server is not installed");
            return None;
        }
        let directory = tempfile::tempdir().expect("a directory").keep();
        let guard = Command::new("sh")
            .args(["-c", GUARD, "sh"])
            .arg(&directory)
            .stdin(Stdio::piped())
            .spawn()
            .expect("a shell");
        let socket = directory.join("socket");
        let connection = connect(&socket).expect("redis-server answers");
        Some(Self { connection, socket, _guard: guard })
    }

    /// Asks for the replies to commands that may be sent twice. libFuzzer interrupts this process
    /// by signals, which end a connection.
    pub fn ask<T: FromRedisValue>(&mut self, commands: &Pipeline) -> RedisResult<T> {
        match commands.query(&mut self.connection) {
            Err(error) if error.is_io_error() => {
                self.connection = connect(&self.socket)?;
                commands.query(&mut self.connection)
            }
            answered => answered,
        }
    }
}

fn is_installed() -> bool {
    let version = Command::new("redis-server").arg("--version").stdout(Stdio::null()).status();
    version.as_ref().map_err(io::Error::kind) != Err(io::ErrorKind::NotFound)
}

/// Tries until the server listens.
fn connect(socket: &Path) -> RedisResult<Connection> {
    let client = redis::Client::open(format!("redis+unix://{}", socket.display()))?;
    let late = Instant::now() + READY_WITHIN;
    loop {
        match client.get_connection() {
            Err(_) if Instant::now() < late => std::thread::sleep(Duration::from_millis(5)),
            connected => return connected,
        }
    }
}
