//! Callers that get in: every listener, both versions of TLS, keys of every form, certificates
//! without key usage, and no server name.

use std::io::Write as _;
use std::process::{Command, Stdio};

use tollgate::edge::pb::rate_limit_response::Code;

use crate::house::{House, client};
use crate::support::certs::write;
use crate::support::grpc::codes;
use crate::support::tollgate::{Options, request};

fn openssl(house: &House, args: &str, input: &str) -> String {
    let mut command = Command::new("openssl");
    command.args(args.split(' ')).current_dir(house.dir.path());
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("openssl, which ca-certificates needs");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&said).into_owned()
}

#[tokio::test]
async fn decisions_are_made_over_tls_with_and_without_a_certificate() {
    let house = House::new();
    let pair = house.pair(&["client.example"]);
    for (options, config) in [
        (house.tollgate(&["grpc"]), house.caller(None)),
        (house.mutual(&["grpc"]), house.caller(Some(&pair))),
    ] {
        let tollgate = options.start();
        let mut client = client(&tollgate, config).await;
        let answers = codes(&mut client, &request("d", &[&[("k", "v")]]), 5).await;
        let admitted = answers.iter().filter(|code| **code == Code::Ok).count();
        assert_eq!(admitted, 3, "{answers:?}");
        tollgate.wait_for_metric("tollgate_tls_handshakes_total{listener=\"grpc\"}", 1.0);
        assert!(tollgate.errors().is_empty(), "{:?}", tollgate.errors());
    }
}

#[tokio::test]
async fn http_listener_serves_tls_of_both_versions_to_callers_without_a_server_name() {
    let house = House::new();
    let tollgate = house.tollgate(&["http"]).start();
    let get = "GET /livez HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n";
    for version in ["-tls1_2", "-tls1_3"] {
        let at = tollgate.at.http;
        let args = format!("s_client -connect {at} -CAfile ca.crt -noservername -quiet {version}");
        let said = openssl(&house, &args, get);
        assert!(said.contains("200 OK") && said.contains("verify return:1"), "{version}: {said}");
    }
}

#[tokio::test]
async fn keys_of_every_form_and_certificates_without_key_usage_are_served() {
    let house = House::new();
    openssl(&house, "genrsa -traditional -out pkcs1.key 2048", "");
    openssl(&house, "ecparam -genkey -name prime256v1 -noout -out sec1.key", "");
    openssl(&house, "genpkey -algorithm ed25519 -out pkcs8.key", "");
    for form in ["pkcs1", "sec1", "pkcs8"] {
        let (cert, key) = (format!("{form}.crt"), format!("{form}.key"));
        let names = "subjectAltName=IP:127.0.0.1";
        openssl(
            &house,
            &format!(
                "req -x509 -key {key} -out {cert} -subj /CN=t -days 2 -addext {names} \
                 -addext basicConstraints=critical,CA:FALSE"
            ),
            "",
        );
        // The same certificate on both sides: one of its own authority, without extended key usage.
        let file = |setting: &str, name: &str| house.file("grpc", setting, name);
        let options = Options::serving(crate::house::POLICIES)
            .set(file("cert_file", &cert))
            .set(file("key_file", &key))
            .set(file("client_ca_file", &cert));
        let tollgate = options.start();
        let args = format!(
            "s_client -connect {} -CAfile {cert} -cert {cert} -key {key} -alpn h2 -brief",
            tollgate.at.grpc
        );
        let said = openssl(&house, &args, "");
        assert!(said.contains("Verification: OK"), "{form}: {said}");
        tollgate.wait_for_metric("tollgate_tls_handshakes_total{listener=\"grpc\"}", 1.0);
    }
}

#[tokio::test]
async fn end_of_a_certificate_is_shown_and_warned_of() {
    let house = House::new();
    house.authority.issue_for_days(house.dir.path(), "server", &["127.0.0.1"], 20);
    let tollgate = house.mutual(&["grpc"]).start();
    let line = tollgate.wait_for_log("expires within 20 days");
    assert!(line.contains("grpc.tls.cert_file") && line.contains("renew it"), "{line}");
    let series = "tollgate_tls_certificate_end_timestamp_seconds";
    let of =
        |certificate: &str| format!("{series}{{listener=\"grpc\",certificate=\"{certificate}\"}}");
    tollgate.wait_for_metric(&of("server"), 1.7e9);
    tollgate.wait_for_metric(&of("client_ca"), 1.7e9);
    // Of a certificate that is over, too.
    let old = house.authority.issue_expired(house.dir.path(), "old", &["127.0.0.1"]);
    for (from, to) in [(&old.cert, "server.crt"), (&old.key, "server.key")] {
        write(&house.dir.path().join(to), &std::fs::read_to_string(from).unwrap());
    }
    tollgate.wait_for_log("has expired");
}
