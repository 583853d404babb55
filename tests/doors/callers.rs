//! Who may ask about a domain, over gRPC and over `/json`.

use std::io::Write as _;
use std::process::{Command, Stdio};

use tollgate::edge::pb::rate_limit_response::Code as Decision;
use tollgate::edge::pb::tollgate::v1 as pb;
use tollgate::edge::pb::tollgate::v1::hold_service_client::HoldServiceClient;
use tonic::Code;

use crate::house::{House, client, connect};
use crate::support::certs::Pair;
use crate::support::tollgate::{Tollgate, request};

const CONFIG: &str = "
grpc:
  tls:
    domain_san:
      payments: spiffe://mesh/ns/pay/*
      logins: spiffe://mesh/ns/pay/*,*.login.example
";

/// The status of a decision about a domain.
async fn asked(tollgate: &Tollgate, house: &House, pair: &Pair, domain: &str) -> Code {
    let mut client = client(tollgate, house.caller(Some(pair))).await;
    match client.should_rate_limit(request(domain, &[&[("k", "v")]])).await {
        Ok(answer) => {
            assert_eq!(answer.into_inner().overall_code(), Decision::Ok);
            Code::Ok
        }
        Err(status) => status.code(),
    }
}

#[tokio::test]
async fn domains_are_asked_about_by_their_callers_alone() {
    let house = House::new();
    let tollgate = house.mutual(&["grpc", "http"]).config(CONFIG).start();
    let pay = house.pair(&["spiffe://mesh/ns/pay/sa/api"]);
    let login = house.pair(&["a.login.example"]);
    let other = house.pair(&["spiffe://mesh/ns/web/sa/api"]);
    for (pair, domain, code) in [
        (&pay, "payments", Code::Ok),
        (&pay, "logins", Code::Ok),
        (&pay, "d", Code::Ok),
        (&login, "payments", Code::PermissionDenied),
        (&login, "logins", Code::Ok),
        (&other, "payments", Code::PermissionDenied),
        (&other, "logins", Code::PermissionDenied),
        (&other, "d", Code::Ok),
    ] {
        assert_eq!(asked(&tollgate, &house, pair, domain).await, code, "{domain} {pair:?}");
        let status = json(&tollgate, &house, pair, domain);
        assert_eq!(status, if code == Code::Ok { 200 } else { 403 }, "{domain} {pair:?}");
        // A handle that is not good is the fault of a caller that may ask.
        let ends = if code == Code::Ok { Code::InvalidArgument } else { code };
        let codes = held(&tollgate, &house, pair, domain).await;
        assert_eq!(codes, [code, ends, ends, ends], "{domain} {pair:?}");
    }
    let refused = "tollgate_requests_total{code=\"permission_denied\"}";
    assert_eq!(tollgate.metric_at(&house, refused), Some(18.0));
}

/// The statuses of a reservation in a domain, and of ends and renewals of no hold.
async fn held(tollgate: &Tollgate, house: &House, pair: &Pair, domain: &str) -> [Code; 4] {
    let channel = connect(tollgate.at.grpc, house.caller(Some(pair))).await.unwrap();
    let mut client = HoldServiceClient::new(channel);
    let asked = request(domain, &[&[("k", "v")]]);
    let descriptors = asked.descriptors.clone();
    let descriptor = Some(descriptors[0].clone());
    let (domain, handle) = (domain.to_owned(), "x".to_owned());
    let usage = vec![pb::Usage { descriptor, hits: None }];
    let reserve = pb::ReserveRequest { request: Some(asked) };
    let settle =
        pb::SettleRequest { domain: domain.clone(), handle: handle.clone(), usage, outcome: None };
    let release = pb::ReleaseRequest {
        domain: domain.clone(),
        handle: handle.clone(),
        descriptors: descriptors.clone(),
        outcome: None,
    };
    let renew = pb::RenewRequest { domain, handle, descriptors };
    let code = |status: tonic::Status| status.code();
    [
        client.reserve(reserve).await.map_or_else(code, |_| Code::Ok),
        client.settle(settle).await.map_or_else(code, |_| Code::Ok),
        client.release(release).await.map_or_else(code, |_| Code::Ok),
        client.renew(renew).await.map_or_else(code, |_| Code::Ok),
    ]
}

/// The status of a decision over `/json`.
fn json(tollgate: &Tollgate, house: &House, pair: &Pair, domain: &str) -> u16 {
    let body = format!(
        "{{\"domain\":\"{domain}\",\"descriptors\":[{{\"entries\":[{{\"key\":\"free\",\"value\":\"v\"}}]}}]}}"
    );
    let head = "POST /json HTTP/1.1\r\nhost: t\r\nconnection: close\r\n";
    let text = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
    let answer = exchange(tollgate, house, pair, &text);
    answer
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .unwrap_or_else(|| panic!("{answer}"))
}

/// The answer of the HTTP listener to these bytes over TLS.
fn exchange(tollgate: &Tollgate, house: &House, pair: &Pair, text: &str) -> String {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-quiet", "-connect", &tollgate.at.http.to_string(), "-CAfile"]);
    command.arg(&house.ca).arg("-cert").arg(&pair.cert).arg("-key").arg(&pair.key);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("openssl, which ca-certificates needs");
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    String::from_utf8_lossy(&child.wait_with_output().unwrap().stdout).into_owned()
}

impl Tollgate {
    /// [`Tollgate::metric`] over TLS.
    fn metric_at(&self, house: &House, series: &str) -> Option<f64> {
        let pair = house.pair(&["metrics.example"]);
        let get = "GET /metrics HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n";
        let text = exchange(self, house, &pair, get);
        text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
    }
}
