//! A stream on which nothing happens: no PING, no end, and TCP that looks after it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::ads::Ads;
use crate::options;
use crate::resources::simple;

/// The bytes before the first frame of a client of HTTP/2.
const PREFACE: usize = 24;

/// The type of a PING, and its flag as an answer.
const PING: u8 = 6;
const ACK: u8 = 1;

/// Type and flags of frames.
type Frames = Arc<Mutex<Vec<(u8, u8)>>>;

/// A relay to `to` that notes the frames of clients.
fn relay(to: SocketAddr) -> (SocketAddr, Frames) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (at, frames) = (listener.local_addr().unwrap(), Frames::default());
    let noted = Arc::clone(&frames);
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let server = TcpStream::connect(to).unwrap();
            let (mut back, mut answers) =
                (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut answers, &mut back));
            let noted = Arc::clone(&noted);
            std::thread::spawn(move || note(client, server, &noted));
        }
    });
    (at, frames)
}

fn note(mut client: TcpStream, mut server: TcpStream, noted: &Frames) -> Option<()> {
    let mut preface = [0; PREFACE];
    client.read_exact(&mut preface).ok()?;
    server.write_all(&preface).ok()?;
    loop {
        let mut head = [0; 9];
        client.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut body = vec![0; length as usize];
        client.read_exact(&mut body).ok()?;
        noted.lock().unwrap().push((head[3], head[4]));
        server.write_all(&head).ok()?;
        server.write_all(&body).ok()?;
    }
}

#[tokio::test]
async fn silent_stream_is_kept_without_pings() {
    let ads = Ads::start();
    let (at, frames) = relay(ads.at);
    let tollgate = options(&ads).set(format!("xds.server={at}")).start();
    ads.subscribed();
    tollgate.wait_for_metric("tollgate_xds_connected", 1.0);
    assert!(ads.event_within(Duration::from_secs(5)).is_none(), "the first response is late");
    ads.accepted("1", "a", vec![simple("x", 1)]);
    assert!(ads.event_within(Duration::from_secs(5)).is_none());
    ads.accepted("2", "b", vec![simple("x", 2)]);
    let frames = frames.lock().unwrap();
    let pings = frames.iter().filter(|(kind, flags)| *kind == PING && flags & ACK == 0);
    assert_eq!(pings.count(), 0, "{frames:?}");
    assert!(frames.len() > 5, "{frames:?}");
}

/// The timer of a connection to `port` as Linux shows it: its kind and the seconds left.
fn timer(port: u16) -> Option<(u8, f64)> {
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    table.lines().skip(1).find_map(|line| {
        let cells: Vec<_> = line.split_whitespace().collect();
        let remote = u16::from_str_radix(cells[2].rsplit_once(':')?.1, 16).ok()?;
        let (kind, ticks) = cells[5].split_once(':')?;
        let established = cells[3] == "01";
        (remote == port && established).then(|| {
            let ticks = u32::from_str_radix(ticks, 16).unwrap();
            (kind.parse().unwrap(), f64::from(ticks) / 100.0)
        })
    })
}

/// The kind of a timer that asks whether the peer is there.
const KEEPALIVE: u8 = 2;

#[tokio::test]
async fn tcp_asks_whether_a_silent_peer_is_there() {
    for (set, seconds) in [(None, 20.0), (Some("xds.tcp_keepalive=7s"), 7.0)] {
        let ads = Ads::start();
        let options = set.into_iter().fold(options(&ads), crate::support::tollgate::Options::set);
        let tollgate = options.start();
        ads.subscribed();
        let keepalive = || {
            let (kind, left) = timer(ads.at.port())?;
            (kind == KEEPALIVE && left <= seconds && left > seconds - 5.0).then_some(())
        };
        tollgate.wait_for("a timer", || keepalive().is_some());
    }
}

/// The network of this process goes down, so that the peer is gone without a word.
#[tokio::test]
#[ignore = "run by control_plane_that_vanishes_is_noticed, in a network of its own"]
async fn network_that_goes_down() {
    let ads = Ads::start();
    let tollgate = options(&ads).set("xds.tcp_keepalive=1s").start();
    ads.subscribed();
    tollgate.wait_for_metric("tollgate_xds_connected", 1.0);
    run("ip", &["link", "set", "lo", "down"]);
    tollgate.wait_for_log("no stream of the control plane");
    run("ip", &["link", "set", "lo", "up"]);
    ads.subscribed();
    ads.accepted("1", "a", vec![simple("x", 1)]);
}

#[test]
fn control_plane_that_vanishes_is_noticed() {
    let own = std::env::current_exe().unwrap();
    let run_inside =
        "ip link set lo up && exec \"$0\" --exact silence::network_that_goes_down --ignored";
    run("unshare", &["-rn", "sh", "-c", run_inside, own.to_str().unwrap()]);
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(output.status.success(), "{program} {arguments:?}: {out}{err}");
    assert!(program == "ip" || out.contains("1 passed"), "{out}");
}
