//! Statistics to a statsd server, over TCP and UDP, against sockets of the test.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::net::{TcpListener, UdpSocket};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use crate::support::grpc::{ask, codes, with_hits};
use crate::support::redis::free_port;
use crate::support::tollgate::{Options, Tollgate, request};
use crate::support::wait::PATIENCE;

const POLICY: &str = "
domain: shop/limits
descriptors:
  - key: shop/limits/rule/1
    value: shop/limits/rule/1
    descriptors:
      - key: masked_remote_address
        value: 10.0.0.0/8
        descriptors:
          - {key: remote_address, rate_limit: {unit: year, requests_per_unit: 4}}
";

/// The names of the rule.
const RULE: &str = "ratelimit.service.rate_limit.shop/limits.shop/limits/rule/1_shop/limits/rule/1.\
                    masked_remote_address_10_0_0_0/8.remote_address";

fn reporting_to(address: impl std::fmt::Display) -> Options {
    Options::serving(POLICY).set(format!("statsd.address={address}")).set("statsd.interval=20ms")
}

async fn hit(tollgate: &Tollgate, times: usize) {
    let rule = "shop/limits/rule/1";
    let entries =
        [(rule, rule), ("masked_remote_address", "10.0.0.0/8"), ("remote_address", "10.1.2.3")];
    codes(&mut tollgate.client().await, &request("shop/limits", &[&entries]), times).await;
}

/// The lines that a server gets.
struct Server(Receiver<String>);

impl Server {
    /// Accepts one connection, and reads it to its end.
    fn accepting(listener: TcpListener) -> Self {
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self(lines)
    }

    /// Reads lines until one holds; all that came.
    fn until(&self, holds: impl Fn(&[String]) -> bool) -> Vec<String> {
        let mut lines = Vec::new();
        let end = Instant::now() + PATIENCE;
        while !holds(&lines) {
            let left = end.saturating_duration_since(Instant::now());
            match self.0.recv_timeout(left) {
                Ok(line) => lines.push(line),
                Err(error) => panic!("{error} after {lines:#?}"),
            }
        }
        lines
    }
}

/// The sums of counters by name.
fn sums(lines: &[String]) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for line in lines {
        let (name, rest) = line.rsplit_once(':').unwrap();
        if let Some(count) = rest.strip_suffix("|c") {
            let count: u64 = count.parse().unwrap();
            assert!(count > 0, "what has not grown is not sent: {line}");
            *sums.entry(name.to_owned()).or_default() += count;
        }
    }
    sums
}

fn sum(lines: &[String], name: &str) -> u64 {
    sums(lines).get(name).copied().unwrap_or_default()
}

#[tokio::test]
async fn counters_are_sent_over_tcp_by_what_they_have_gained() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let tollgate = reporting_to(listener.local_addr().unwrap()).start();
    let server = Server::accepting(listener);
    let total = format!("{RULE}.total_hits");
    let mut lines = Vec::new();
    for round in 1..=2 {
        hit(&tollgate, 3).await;
        let before = lines.clone();
        let more = server.until(|more| sum(&[&before, more].concat(), &total) == 3 * round);
        lines.extend(more);
    }
    let calls = "ratelimit_server.ShouldRateLimit.total_requests";
    let before = lines.clone();
    lines.extend(server.until(|more| sum(&[&before, more].concat(), calls) == 6));
    let sums = sums(&lines);
    let of_rule = |kind: &str| sums.get(&format!("{RULE}.{kind}")).copied();
    assert_eq!(of_rule("over_limit"), Some(2), "{lines:#?}");
    assert_eq!(of_rule("within_limit"), Some(4));
    assert_eq!(of_rule("near_limit"), Some(1), "from floor(4 * 0.8) = 3 on");
    assert_eq!(of_rule("shadow_mode"), None, "what is zero is not sent");
    assert_eq!(sums["ratelimit.service.config_load_success"], 1);
    assert!(!sums.contains_key("ratelimit.service.config_load_error"));
    // Names of the reference are counted, and not shown unless asked for.
    assert_eq!(tollgate.metric("ratelimit_service_config_load_success"), None);
}

#[tokio::test]
async fn timer_has_milliseconds_with_the_number_of_calls_as_its_rate() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let tollgate = reporting_to(listener.local_addr().unwrap()).start();
    let server = Server::accepting(listener);
    hit(&tollgate, 10).await;
    let timer = "ratelimit_server.ShouldRateLimit.response_time:";
    let calls = |lines: &[String]| -> f64 {
        let values = lines.iter().filter_map(|line| line.strip_prefix(timer));
        let count = |value: &str| {
            let (millis, rest) = value.split_once("|ms").unwrap();
            let millis: f64 = millis.parse().unwrap();
            assert!(millis > 0.0 && millis < 15_000.0, "{value}");
            match rest.strip_prefix("|@") {
                Some(rate) => 1.0 / rate.parse::<f64>().unwrap(),
                None => 1.0,
            }
        };
        values.map(count).sum()
    };
    server.until(|lines| (calls(lines) - 10.0).abs() < 0.01);
}

#[tokio::test]
async fn last_lines_are_sent_when_the_process_stops() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let options = reporting_to(listener.local_addr().unwrap()).set("statsd.interval=1h");
    let mut tollgate = options.set("grpc.drain_delay=0s").start();
    let server = Server::accepting(listener);
    hit(&tollgate, 2).await;
    tollgate.signal("TERM");
    assert!(tollgate.wait().success());
    server.until(|lines| sum(lines, &format!("{RULE}.total_hits")) == 2);
}

#[tokio::test]
async fn server_that_goes_away_and_comes_back_gets_what_happens_then() {
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    let tollgate = reporting_to(&address).start();
    hit(&tollgate, 1).await;
    let dropped = "tollgate_statsd_lines_dropped_total";
    tollgate.wait_for_metric(dropped, 1.0);
    let warning = "statistics do not reach the statsd server";
    let line = tollgate.wait_for_log(warning);
    assert!(line.contains(&address) && line.contains("statsd.address"), "{line}");

    let total = format!("{RULE}.total_hits");
    for _ in 0..2 {
        let server = Server::accepting(TcpListener::bind(&address).unwrap());
        // A report may be under way that finds no server yet.
        let end = Instant::now() + PATIENCE;
        let mut lines = Vec::new();
        while sum(&lines, &total) == 0 {
            assert!(Instant::now() < end, "{lines:#?}");
            hit(&tollgate, 1).await;
            lines.extend(server.0.recv_timeout(Duration::from_millis(100)));
            lines.extend(server.0.try_iter());
        }
        tollgate.wait_for_log("statistics reach the statsd server");
        // The thread ends with its next line, and the connection with it.
        drop(server);
        let lost = tollgate.metric(dropped).unwrap();
        let end = Instant::now() + PATIENCE;
        while tollgate.metric(dropped).unwrap() <= lost {
            assert!(Instant::now() < end, "no line is lost");
            hit(&tollgate, 1).await;
        }
    }
    let warnings = tollgate.log().into_iter().filter(|line| line.contains(warning)).count();
    assert!((2..=3).contains(&warnings), "one for each outage, not for each report: {warnings}");
}

/// The lines of datagrams until `holds`.
fn datagrams(socket: &UdpSocket, holds: impl Fn(&[String]) -> bool) -> Vec<String> {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut lines, mut datagram) = (Vec::new(), [0; 2_048]);
    while !holds(&lines) {
        let length = socket.recv(&mut datagram).unwrap_or_else(|e| panic!("{e} after {lines:#?}"));
        assert!(length <= 1_432);
        let text = std::str::from_utf8(&datagram[..length]).unwrap();
        lines.extend(text.lines().map(str::to_owned));
    }
    lines
}

#[tokio::test]
async fn statsd_over_udp_has_tags_in_names_and_a_prefix() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let tollgate = reporting_to(socket.local_addr().unwrap())
        .config("statsd: {tags: [zone=b, env=prod], prefix: edge.}\n")
        .set("statsd.protocol=udp")
        .start();
    hit(&tollgate, 3).await;
    let name = format!("edge.{RULE}.total_hits.__env=prod.__zone=b");
    datagrams(&socket, |lines| sum(lines, &name) == 3);
}

#[tokio::test]
async fn dogstatsd_has_tags_after_the_value() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let tollgate = reporting_to(socket.local_addr().unwrap())
        .set("statsd.tags=zone=b,env=prod")
        .set("statsd.flavor=dogstatsd")
        .start();
    hit(&tollgate, 1).await;
    let line = format!("{RULE}.total_hits:1|c|#env:prod,zone:b");
    datagrams(&socket, |lines| lines.contains(&line));
}

#[tokio::test]
async fn value_of_a_request_makes_no_line_of_its_own() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let policies = "domain: d\ndescriptors:\n  - {key: k, detailed_metric: true, \
                    rate_limit: {unit: year, requests_per_unit: 4}}\n";
    let tollgate = Options::serving(policies)
        .set(format!("statsd.address={}", socket.local_addr().unwrap()))
        .set("statsd.interval=20ms")
        .set("statsd.protocol=udp")
        .start();
    let asked = request("d", &[&[("k", "x:9|c\nforged:1|c\n")]]);
    ask(&mut tollgate.client().await, with_hits(asked, 2)).await;
    let name = "ratelimit.service.rate_limit.d.k_x_9_c%0Aforged_1_c%0A.total_hits";
    let lines = datagrams(&socket, |lines| sum(lines, name) == 2);
    assert!(lines.iter().all(|line| !line.starts_with("forged")), "{lines:#?}");
}

/// The variables of envoyproxy/ratelimit lead to the same listeners and lines.
#[tokio::test]
async fn variables_of_the_reference_set_listeners_and_statsd() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port().to_string();
    let mut options = Options::serving(POLICY).set("debug.listen=127.0.0.1:0");
    for (name, value) in [
        ("TOLLGATE__COMPAT", "ratelimit"),
        ("USE_PROMETHEUS", "true"),
        ("PROMETHEUS_ADDR", "127.0.0.1:0"),
        ("PROMETHEUS_PATH", "/prom"),
        ("STATSD_HOST", "127.0.0.1"),
        ("STATSD_PORT", &port),
        ("STATSD_PROTOCOL", "udp"),
        ("STATS_FLUSH_INTERVAL", "20ms"),
        ("EXTRA_TAGS", "zone:b,env:prod"),
    ] {
        options = options.env(name, value);
    }
    let tollgate = options.start();
    hit(&tollgate, 2).await;
    let name = format!("{RULE}.total_hits.__env=prod.__zone=b");
    datagrams(&socket, |lines| sum(lines, &name) == 2);
    let series = "ratelimit_service_rate_limit_total_hits{domain=\"shop/limits\",";
    for (at, path) in [(tollgate.at.http, "/metrics"), (tollgate.at.metrics.unwrap(), "/prom")] {
        let text = crate::support::http::get(at, path).body;
        assert!(text.contains(series) && text.contains("tollgate_build_info"), "{path}: {text}");
    }
    let limits = crate::support::http::get(tollgate.at.debug.unwrap(), "/rlconfig").body;
    assert!(limits.contains(".remote_address: unit=YEAR requests_per_unit=4,"), "{limits}");
}
