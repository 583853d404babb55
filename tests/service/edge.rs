//! The edges of the process: health, reflection, draining, ages of connections, HTTP, and peers that speak nonsense, slowly
//! or not at all.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message as _;
use tokio_stream::StreamExt as _;
use tollgate::edge::pb;
use tollgate::edge::pb::rate_limit_response::Code;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::support::grpc::{SHOULD_RATE_LIMIT, ask, codes, frame, raw_call, raw_call_in_pieces};
use crate::support::http;
use crate::support::redis::RedisServer;
use crate::support::tollgate::{Options, Tollgate, request};

const POLICIES: &str = "
domain: d
descriptors:
  - {key: two, rate_limit: {unit: day, requests_per_unit: 2}}
  - {key: many, rate_limit: {unit: day, requests_per_unit: 4000000000}}
";

const SERVICE: &str = "envoy.service.ratelimit.v3.RateLimitService";

const HOLDS: &str = "tollgate.v1.HoldService";

fn many() -> pb::RateLimitRequest {
    request("d", &[&[("many", "v")]])
}

/// It still decides, and has logged no fault of its own.
async fn is_sound(tollgate: &Tollgate, value: &str) {
    let asked = request("d", &[&[("two", value)]]);
    let codes = codes(&mut tollgate.client().await, &asked, 3).await;
    assert_eq!(codes, [Code::Ok, Code::Ok, Code::OverLimit]);
    assert!(tollgate.errors().is_empty(), "{:?}", tollgate.errors());
}

fn of(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

#[tokio::test]
async fn health_is_told_by_every_name_on_both_listeners() {
    let tollgate = Options::serving(POLICIES).start();
    for address in [tollgate.at.grpc, tollgate.at.admin] {
        let mut health = HealthClient::new(Tollgate::channel(address).await);
        for name in ["", "ratelimit", SERVICE] {
            let status = health.check(of(name)).await.unwrap().into_inner().status();
            assert_eq!(status, ServingStatus::Serving, "{name:?}");
        }
        let unknown = health.check(of("unknown")).await.unwrap_err();
        assert_eq!(unknown.code(), tonic::Code::NotFound);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_watches_health_hears_of_the_end_and_does_not_delay_it() {
    let options = Options::serving(POLICIES).set("grpc.drain_delay=200ms");
    let mut tollgate = options.set("grpc.drain_timeout=60s").start();
    let mut streams = Vec::new();
    for address in [tollgate.at.grpc, tollgate.at.admin] {
        for name in ["", SERVICE] {
            let mut health = HealthClient::new(Tollgate::channel(address).await);
            let mut stream = health.watch(of(name)).await.unwrap().into_inner();
            assert_eq!(status_of(stream.next().await), Some(ServingStatus::Serving));
            streams.push(stream);
        }
    }
    let start = Instant::now();
    tollgate.signal("TERM");
    for stream in &mut streams {
        assert_eq!(status_of(stream.next().await), Some(ServingStatus::NotServing));
    }
    for stream in &mut streams {
        assert_eq!(status_of(stream.next().await), None);
    }
    assert!(tollgate.wait().success());
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

fn status_of(next: Option<Result<HealthCheckResponse, tonic::Status>>) -> Option<ServingStatus> {
    next.and_then(Result::ok).map(|response| response.status())
}

/// Asks the reflection service of this version which services there are.
macro_rules! services {
    ($version:ident, $address:expr) => {{
        use pb::server_reflection_request::MessageRequest;
        use pb::server_reflection_response::MessageResponse;
        use tonic_reflection::pb::$version as pb;
        let channel = Tollgate::channel($address).await;
        let mut client = pb::server_reflection_client::ServerReflectionClient::new(channel);
        let ask = |message_request| pb::ServerReflectionRequest {
            host: String::new(),
            message_request: Some(message_request),
        };
        let requests = [
            ask(MessageRequest::ListServices(String::new())),
            ask(MessageRequest::FileContainingSymbol(SERVICE.to_owned())),
        ];
        let answers = client.server_reflection_info(tokio_stream::iter(requests)).await.unwrap();
        let answers: Vec<_> = answers.into_inner().collect().await;
        let mut answers = answers.into_iter().map(|answer| answer.unwrap().message_response);
        let Some(Some(MessageResponse::ListServicesResponse(list))) = answers.next() else {
            panic!("no list of services")
        };
        let Some(Some(MessageResponse::FileDescriptorResponse(files))) = answers.next() else {
            panic!("the service is not described")
        };
        assert!(!files.file_descriptor_proto.is_empty());
        list.service.into_iter().map(|service| service.name).collect::<Vec<_>>()
    }};
}

#[tokio::test]
async fn reflection_lists_and_describes_in_both_versions() {
    let tollgate = Options::serving(POLICIES).start();
    for services in [services!(v1, tollgate.at.grpc), services!(v1alpha, tollgate.at.grpc)] {
        for service in [SERVICE, HOLDS, "grpc.health.v1.Health"] {
            assert!(services.iter().any(|name| name == service), "no {service} in {services:?}");
        }
    }
}

#[test]
fn grpcurl_lists_describes_and_asks() {
    let grpcurl = std::path::Path::new(".tools/bin/grpcurl");
    if !grpcurl.exists() {
        assert!(std::env::var_os("CI").is_none() || !has_go(), "grpcurl is needed");
        eprintln!("SKIPPED: grpcurl is not installed");
        return;
    }
    let tollgate = Options::serving(POLICIES).start();
    let run = |flags: &[&str], rest: &[&str]| {
        let mut command = Command::new(grpcurl);
        command.arg("-plaintext").args(flags).arg(tollgate.at.grpc.to_string()).args(rest);
        let output = command.output().expect("grpcurl");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(run(&[], &["list"]).contains(SERVICE));
    assert!(run(&[], &["describe", SERVICE]).contains("ShouldRateLimit"));
    let asked =
        r#"{"domain": "d", "descriptors": [{"entries": [{"key": "two", "value": "grpcurl"}]}]}"#;
    let answer = run(&["-d", asked], &[&format!("{SERVICE}/ShouldRateLimit")]);
    assert!(answer.contains("\"overallCode\": \"OK\""), "{answer}");
}

fn has_go() -> bool {
    Command::new("go").arg("version").output().is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_under_way_are_answered_when_a_signal_ends_the_process() {
    let Some(redis) = RedisServer::start() else { return };
    for signal in ["TERM", "INT"] {
        let options = Options::serving(POLICIES).redis(redis.url()).set("store.deadline=3s");
        let options = options.set("redis.response_timeout=30s").set("grpc.drain_delay=1500ms");
        let mut tollgate = options.start();
        let mut clients = Vec::new();
        for _ in 0..8 {
            clients.push(tollgate.client().await);
        }
        // Redis keeps them waiting until after the listeners have closed.
        redis.pause();
        let calls: Vec<_> = clients
            .into_iter()
            .map(|mut client| tokio::spawn(async move { ask(&mut client, many()).await }))
            .collect();
        tollgate.signal(signal);
        tollgate.wait_for_log("draining");
        assert_eq!(http::get(tollgate.at.http, "/readyz").status, 503, "while it drains");
        assert_eq!(http::get(tollgate.at.http, "/livez").status, 200);
        let mut late = tollgate.client().await;
        assert_eq!(ask(&mut late, many()).await.overall_code(), Code::Ok, "not all have heard yet");
        for call in calls {
            assert_eq!(call.await.expect("an answer").overall_code(), Code::Ok);
        }
        redis.resume();
        assert_eq!(tollgate.wait().code(), Some(0), "{signal}");
        assert!(TcpStream::connect(tollgate.at.grpc).is_err());
        tollgate.wait_for_log("\"stopped\"");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn second_signal_or_the_drain_timeout_ends_what_will_not_end() {
    let Some(redis) = RedisServer::start() else { return };
    let options = Options::serving(POLICIES).redis(redis.url()).set("store.deadline=1h");
    let options = options.set("redis.response_timeout=1h").set("grpc.drain_delay=0s");
    let mut patient = options.clone().set("grpc.drain_timeout=1h").start();
    let mut hasty = options.set("grpc.drain_timeout=300ms").start();
    let (mut of_patient, mut of_hasty) = (patient.client().await, hasty.client().await);
    ask(&mut of_patient, many()).await;
    ask(&mut of_hasty, many()).await;
    redis.pause();
    let stuck = [
        tokio::spawn(async move { of_patient.should_rate_limit(many()).await.is_ok() }),
        tokio::spawn(async move { of_hasty.should_rate_limit(many()).await.is_ok() }),
    ];
    // The calls have reached Redis' socket once they were sent; nothing tells that from outside.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let start = Instant::now();
    hasty.signal("TERM");
    patient.signal("TERM");
    patient.wait_for_log("draining");
    assert_eq!(hasty.wait().code(), Some(0));
    hasty.wait_for_log("calls in flight");
    // Supervisors signal a process and its group: a repeat within a second is the same request.
    patient.signal("TERM");
    tokio::time::sleep_until((start + Duration::from_millis(1_100)).into()).await;
    assert!(!patient.log().iter().any(|line| line.contains("on the second signal")));
    patient.signal("TERM");
    assert_eq!(patient.wait().code(), Some(0));
    patient.wait_for_log("on the second signal");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    for call in stuck {
        assert!(!call.await.unwrap(), "was not under way");
    }
    redis.resume();
}

#[tokio::test]
async fn old_connections_are_closed_without_a_failed_call() {
    let options = Options::serving(POLICIES).set("grpc.max_connection_age=200ms");
    let tollgate = options.start();
    let mut client = tollgate.client().await;
    let start = Instant::now();
    while tollgate.metric("tollgate_connections_total") < Some(4.0) {
        assert_eq!(ask(&mut client, many()).await.overall_code(), Code::Ok);
        assert!(start.elapsed() < Duration::from_secs(10), "connections live on");
    }
}

#[test]
fn json_is_decided_like_grpc() {
    let tollgate = Options::serving(POLICIES).start();
    let json = |body: &str| http::post(tollgate.at.http, "/json", body);
    let two = |rest: &str| {
        format!(
            r#"{{"domain":"d","descriptors":[{{"entries":[{{"key":"two","value":"v"}}]{rest}}}]}}"#
        )
    };
    let first = json(&two(""));
    assert_eq!(first.status, 200);
    let found: serde_json::Value = serde_json::from_str(&first.body).unwrap();
    assert_eq!(found["overallCode"], "OK");
    let limit = serde_json::json!({"requestsPerUnit": 2, "unit": "DAY"});
    assert_eq!(found["statuses"][0]["currentLimit"], limit);
    assert_eq!(found["statuses"][0]["limitRemaining"], 1);
    assert_eq!(found["statuses"][0]["durationUntilReset"], "86400s");
    assert_eq!(found["dynamicMetadata"]["domain"], "d");
    assert_eq!(json(&two("")).status, 200);
    let over = json(&two(""));
    assert_eq!(over.status, 429);
    assert!(over.body.contains("OVER_LIMIT") && over.head.contains("application/json"));
    // Names in both spellings; 64-bit numbers as text, as proto3 JSON writes them.
    for rest in [
        r#","hitsAddend":"2","isNegativeHits":true"#,
        r#","hits_addend":2,"is_negative_hits":true"#,
        r#","limit":{"requestsPerUnit":9,"unit":"WEEK","unitMultiplier":2}"#,
        r#","limit":{"requests_per_unit":9,"unit":1,"unit_multiplier":2},"hitsAddend":null"#,
    ] {
        assert_eq!(json(&two(rest)).status, 200, "{rest}");
    }
    assert_eq!(json(&two(r#","hitsAddend":"18446744073709551615""#)).status, 429);
    for (body, reason) in [
        ("", "EOF"),
        ("{", "EOF"),
        ("\"x\"", "invalid type"),
        (r#"{"domain":"d","descriptors":[],"colour":1}"#, "unknown field `colour`"),
        (r#"{"descriptors":[{}]}"#, "domain must not be empty"),
        (r#"{"domain":"d"}"#, "descriptors must not be empty"),
        (&two(r#","hitsAddend":-1"#), "line 1"),
        (&two(r#","hitsAddend":"x""#), "invalid digit"),
        (&two(r#","limit":{"unit":"FORTNIGHT"}"#), "unknown unit"),
        (r#"{"domain":"d","hitsAddend":4294967296}"#, "32 bits"),
    ] {
        let answer = json(body);
        assert_eq!(answer.status, 400, "{body}");
        assert!(answer.body.contains(reason), "{body} gave {}", answer.body);
    }
    let large = "x".repeat(65_537);
    assert_eq!(json(&two(&format!(r#","colour":"{large}""#))).status, 429, "over its limit");
    assert_eq!(http::get(tollgate.at.http, "/nothing").status, 404);
}

#[test]
fn probes_and_metrics_answer() {
    let tollgate = Options::serving(POLICIES).set("metrics.names=both").start();
    for path in ["/healthcheck", "/readyz", "/livez"] {
        let answer = http::get(tollgate.at.http, path);
        assert_eq!((answer.status, answer.body.as_str()), (200, "OK\n"), "{path}");
    }
    let answer = http::get(tollgate.at.http, "/metrics");
    assert_eq!(answer.status, 200);
    assert!(answer.head.contains("content-type: application/openmetrics-text; version=1.0.0"));
    assert!(answer.body.ends_with("# EOF\n"));
    let mut families = std::collections::HashSet::new();
    for line in answer.body.lines().filter(|line| *line != "# EOF") {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.split(' ');
            let (kind, name) = (words.next().unwrap(), words.next().unwrap());
            assert!(["HELP", "TYPE", "UNIT"].contains(&kind), "{line}");
            if kind == "TYPE" {
                assert!(families.insert(name), "{name} twice");
            }
            continue;
        }
        let (series, value) = line.rsplit_once(' ').expect("a value");
        value.parse::<f64>().unwrap_or_else(|_| panic!("no number in {line}"));
        let name = series.split('{').next().unwrap();
        let prefixes = ["tollgate_", "process_", "ratelimit_service_"];
        assert!(prefixes.iter().any(|prefix| name.starts_with(prefix)), "{line}");
        assert!(families.iter().any(|family| name.starts_with(family)), "no TYPE before {line}");
    }
    assert!(families.len() >= 12, "{families:?}");
}

/// Sends these bytes, reads what comes until the end or for a moment, and goes.
fn babble(tollgate: &Tollgate, bytes: &[u8]) {
    let mut stream = TcpStream::connect(tollgate.at.grpc).unwrap();
    let _ = stream.write_all(bytes);
    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let _ = stream.read(&mut [0; 1_024]);
}

#[tokio::test]
async fn nonsense_on_the_grpc_port_harms_nobody() {
    let tollgate = Options::serving(POLICIES).start();
    let preface: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let random: Vec<u8> =
        (0..65_536_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let hello = b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00";
    let beyond = [preface, &[0xff; 64]].concat();
    let table: [&[u8]; 7] =
        [&random, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", hello, preface, &beyond, b"", b"P"];
    for bytes in table {
        babble(&tollgate, bytes);
    }
    let half = TcpStream::connect(tollgate.at.grpc).unwrap();
    half.shutdown(Shutdown::Write).unwrap();
    is_sound(&tollgate, "after babble").await;

    let message = many().encode_to_vec();
    let call =
        async |path, headers: &[_], body| raw_call(tollgate.at.grpc, path, headers, body).await;
    let wrong_path = call("/x.Y/Z", &[], frame(false, &message)).await;
    assert_eq!(wrong_path.status(), Some("12"));
    let zipped = call(SHOULD_RATE_LIMIT, &[("grpc-encoding", "gzip")], frame(true, &message)).await;
    assert_eq!(zipped.status(), Some("12"), "compression is not offered");
    let malformed = call(SHOULD_RATE_LIMIT, &[], frame(false, &[0xff; 32])).await;
    assert!(malformed.status().is_some_and(|code| code != "0"));
    let empty = call(SHOULD_RATE_LIMIT, &[], Bytes::new()).await;
    assert!(empty.status().is_some_and(|code| code != "0"));
    let short = call(SHOULD_RATE_LIMIT, &[], frame(false, &message).slice(..8)).await;
    assert!(short.status().is_some_and(|code| code != "0"));
    // Too large is an answer, whether the message is there or only announced.
    let large = call(SHOULD_RATE_LIMIT, &[], frame(false, &vec![0; 65_537])).await;
    assert_eq!(large.response().overall_code(), Code::OverLimit);
    let announced = Bytes::from_static(b"\x00\xff\xff\xff\xff");
    let announced = call(SHOULD_RATE_LIMIT, &[], announced).await;
    assert_eq!(announced.response().overall_code(), Code::OverLimit);
    is_sound(&tollgate, "after calls").await;
}

#[tokio::test]
async fn message_may_come_in_pieces_but_only_one_in_a_call() {
    let tollgate = Options::serving(POLICIES).start();
    let call =
        async |pieces| raw_call_in_pieces(tollgate.at.grpc, SHOULD_RATE_LIMIT, &[], pieces).await;
    let whole = frame(false, &many().encode_to_vec());
    let bytes: Vec<Bytes> = (0..whole.len()).map(|i| whole.slice(i..=i)).collect();
    assert_eq!(call(bytes.clone()).await.response().overall_code(), Code::Ok);
    let with_empty = bytes.iter().flat_map(|byte| [byte.clone(), Bytes::new()]).collect();
    assert_eq!(call(with_empty).await.response().overall_code(), Code::Ok);
    let twice: Bytes = [&whole[..], &whole[..]].concat().into();
    for pieces in [vec![twice], vec![whole.clone(), whole.clone()], bytes[..whole.len() - 1].into()]
    {
        let refused = call(pieces).await;
        assert_eq!(refused.status(), Some("13"), "{:?}", refused.headers);
    }
    let large = frame(false, &vec![0; 65_537]);
    let large = (0..large.len()).step_by(9_999).map(|i| large.slice(i..large.len().min(i + 9_999)));
    assert_eq!(call(large.collect()).await.response().overall_code(), Code::OverLimit);
    is_sound(&tollgate, "after pieces").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousand_connections_are_served_at_once() {
    let tollgate = Options::serving(POLICIES).start();
    let mut clients = Vec::new();
    for _ in 0..1_000 {
        clients.push(tollgate.client().await);
    }
    let calls: Vec<_> = clients
        .iter()
        .map(|client| {
            let mut client = client.clone();
            tokio::spawn(async move { ask(&mut client, many()).await.overall_code() })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), Code::Ok);
    }
    assert!(tollgate.metric("tollgate_connections_total") >= Some(1_000.0));
    drop(clients);
    is_sound(&tollgate, "after all").await;
}

#[tokio::test]
async fn slow_peers_hold_up_neither_decisions_nor_the_end() {
    let mut tollgate = Options::serving(POLICIES).set("grpc.drain_timeout=1s").start();
    let mut slow = Vec::new();
    for _ in 0..100 {
        let mut peer = TcpStream::connect(tollgate.at.http).unwrap();
        peer.write_all(b"POST /json HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{").unwrap();
        slow.push(peer);
        let mut peer = TcpStream::connect(tollgate.at.grpc).unwrap();
        peer.write_all(b"PRI * HTTP").unwrap();
        slow.push(peer);
    }
    let start = Instant::now();
    is_sound(&tollgate, "beside slow peers").await;
    assert_eq!(http::get(tollgate.at.http, "/readyz").status, 200);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    tollgate.signal("TERM");
    assert_eq!(tollgate.wait().code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
}
