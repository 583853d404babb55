//! The environment of Envoy Gateway 1.9 to the letter: its ports, names and files, as user 65534 on
//! a read-only root without capabilities, in a network of its own.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tollgate::edge::pb::rate_limit_response::Code;
use tollgate::edge::pb::rate_limit_service_client::RateLimitServiceClient;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use crate::ads::Ads;
use crate::certs::Authority;
use crate::mutual::{ROUTE, generated};
use crate::resources::resources;
use crate::support::grpc::codes;
use crate::support::http;
use crate::support::tollgate::request;

const PATIENCE: Duration = Duration::from_secs(20);

/// In the order of the Deployment.
const ENVIRONMENT: [(&str, &str); 22] = [
    ("RUNTIME_ROOT", "/data"),
    ("RUNTIME_SUBDIRECTORY", "ratelimit"),
    ("RUNTIME_IGNOREDOTFILES", "true"),
    ("RUNTIME_WATCH_ROOT", "false"),
    ("LOG_LEVEL", "info"),
    ("USE_STATSD", "false"),
    ("CONFIG_TYPE", "GRPC_XDS_SOTW"),
    ("CONFIG_GRPC_XDS_SERVER_URL", "envoy-gateway:18001"),
    ("CONFIG_GRPC_XDS_NODE_ID", "envoy-ratelimit"),
    ("GRPC_SERVER_USE_TLS", "true"),
    ("GRPC_SERVER_TLS_CERT", "/certs/tls.crt"),
    ("GRPC_SERVER_TLS_KEY", "/certs/tls.key"),
    ("GRPC_SERVER_TLS_CA_CERT", "/certs/ca.crt"),
    ("CONFIG_GRPC_XDS_SERVER_USE_TLS", "true"),
    ("CONFIG_GRPC_XDS_CLIENT_TLS_CERT", "/certs/tls.crt"),
    ("CONFIG_GRPC_XDS_CLIENT_TLS_KEY", "/certs/tls.key"),
    ("CONFIG_GRPC_XDS_SERVER_TLS_CACERT", "/certs/ca.crt"),
    ("FORCE_START_WITHOUT_INITIAL_CONFIG", "true"),
    ("REDIS_SOCKET_TYPE", "tcp"),
    ("REDIS_URL", "redis.redis.svc:6379"),
    ("USE_PROMETHEUS", "true"),
    ("PROMETHEUS_ADDR", ":19001"),
];

/// The last of them: a ConfigMap that is optional, and not there.
const MAPPER: (&str, &str) = ("PROMETHEUS_MAPPER_YAML", "/etc/statsd-exporter/conf.yaml");

#[test]
fn envoy_gateway() {
    if Command::new("bwrap").arg("--version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "bwrap is needed: run deploy/tools.sh");
        eprintln!("SKIPPED: bwrap is not installed; deploy/tools.sh installs it");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let hosts = dir.path().join("hosts");
    fs::write(&hosts, "127.0.0.1 localhost envoy-gateway redis.redis.svc\n").unwrap();
    let mut bwrap = Command::new("bwrap");
    bwrap.args(["--unshare-all", "--uid", "65534", "--gid", "65534", "--cap-drop", "ALL"]);
    bwrap.args(["--die-with-parent", "--clearenv", "--proc", "/proc", "--dev", "/dev"]);
    for path in ["/usr", "/lib", "/lib64", "/bin", "/etc/ssl"] {
        bwrap.args(["--ro-bind-try", path, path]);
    }
    bwrap.arg("--ro-bind").arg(&hosts).arg("/etc/hosts");
    bwrap.args(["--ro-bind", env!("CARGO_BIN_EXE_tollgate"), "/image/ratelimit"]);
    bwrap.arg("--ro-bind").arg(std::env::current_exe().unwrap()).arg("/image/test");
    bwrap.args(["--tmpfs", "/tmp", "--symlink", "/tmp/certs", "/certs", "--remount-ro", "/"]);
    bwrap.args(["--setenv", "PATH", "/usr/bin:/bin", "--chdir", "/", "--"]);
    bwrap.args(["/image/test", "--exact", "installed::inside", "--ignored", "--nocapture"]);
    let output = bwrap.output().unwrap();
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(output.status.success() && out.contains("1 passed"), "{out}\n{err}");
}

/// Programs that end with the test.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}:\n{}", log());
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn log() -> String {
    fs::read_to_string("/tmp/log").unwrap_or_default()
}

fn redis() -> Started {
    let arguments = ["--port", "6379", "--bind", "127.0.0.1", "--save", "", "--dir", "/tmp"];
    let mut redis = Command::new("redis-server");
    Started(redis.args(arguments).stdout(Stdio::null()).spawn().unwrap())
}

fn ratelimit() -> Started {
    let mut program = Command::new("/image/ratelimit");
    program.env_clear().envs(ENVIRONMENT).envs([MAPPER]);
    Started(program.stderr(fs::File::create("/tmp/log").unwrap()).spawn().unwrap())
}

/// A caller without a certificate. Envoy has one, and looks at no name of the server.
async fn client() -> RateLimitServiceClient<Channel> {
    let ca = Certificate::from_pem(fs::read("/certs/ca.crt").unwrap());
    let tls = ClientTlsConfig::new().ca_certificate(ca).domain_name("caller.test");
    let endpoint = Endpoint::from_static("https://127.0.0.1:8081").tls_config(tls).unwrap();
    RateLimitServiceClient::new(endpoint.connect().await.unwrap())
}

#[tokio::test]
#[ignore = "run by envoy_gateway, in a sandbox"]
async fn inside() {
    let authority = Authority::new();
    fs::create_dir("/tmp/certs").unwrap();
    authority.issue(Path::new("/tmp/certs"), "*", &["*.envoy-gateway-system", "caller.test"]);
    let ads = Ads::at(at(18_001), Some(authority.server()));
    let _redis = redis();
    until("Redis", || std::net::TcpStream::connect(at(6_379)).is_ok());
    let _ratelimit = ratelimit();
    until("a listener", || std::net::TcpStream::connect(at(8_080)).is_ok());
    until("health before any response", || http::get(at(8_080), "/healthcheck").status == 200);
    ads.certificate();
    ads.subscribed();
    ads.accepted("1", "n1", resources(&generated()));

    let address: &[(&str, &str)] = &[
        ("shop/limits/rule/1", "shop/limits/rule/1"),
        ("masked_remote_address", "10.0.0.0/8"),
        ("remote_address", "10.1.2.3"),
    ];
    let asked = request("shop/limits", &[address]);
    let mut client = client().await;
    assert_eq!(codes(&mut client, &asked, 1).await, [Code::Ok]);

    let limits = http::get(at(6_070), "/rlconfig").body;
    for line in [
        format!(
            "shop/edge/https.{ROUTE}_{ROUTE}.rule-0-match-0.rule-0-method_rule-0-method: \
             unit=MINUTE requests_per_unit=100, shadow_mode: false, quota_mode: false"
        ),
        format!(
            "shop/edge/https.{ROUTE}_{ROUTE}.rule-1-path_rule-1-path.rule-1-match-0_rule-1-match-0: \
             unit=HOUR requests_per_unit=5, shadow_mode: true, quota_mode: false"
        ),
        "shop/limits.shop/limits/rule/1_shop/limits/rule/1.masked_remote_address_10.0.0.0/8.\
         remote_address: unit=SECOND requests_per_unit=20"
            .to_owned(),
    ] {
        assert!(limits.contains(&line), "{line} in\n{limits}");
    }
    let series = "ratelimit_service_rate_limit_total_hits{domain=\"shop/limits\",\
                  key1=\"shop/limits/rule/1_shop/limits/rule/1\",\
                  key2=\"masked_remote_address_10_0_0_0/8\"} 1";
    let metrics = http::get(at(19_001), "/metrics").body;
    assert!(metrics.contains(series), "{metrics}");
    let bad: Vec<String> = log().lines().filter(is_bad).map(ToOwned::to_owned).collect();
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

fn is_bad(line: &&str) -> bool {
    line.contains("WARN") || line.contains("ERROR")
}
