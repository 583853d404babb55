//! Settings of TLS that do not fit together, or whose files cannot be used: a fault at the start.

use tollgate::config::{self, Secret, Sources};

use crate::house::House;
use crate::support::tollgate::command;

#[test]
fn settings_that_do_not_fit_together_are_faults() {
    for (set, fault) in [
        ("grpc.tls.client_ca_file=/x", "grpc.tls.client_ca_file: has no effect without grpc.tls."),
        ("admin.tls.client_san=a", "admin.tls.client_san: has no effect without admin.tls.client_"),
        ("http.tls.client_san=a*b", "http.tls.client_san: found \"a*b\", expected a list of names"),
        ("admin.listen=0.0.0.0:1", "set admin.token, admin.token_file or admin.tls.client_ca_file"),
    ] {
        let set = set.split(' ').map(Secret::new).collect();
        let faults = config::load(&Sources { set, ..Sources::default() }).unwrap_err().to_string();
        assert!(faults.contains(fault), "{fault:?} in {faults}");
    }
}

#[test]
fn what_is_printed_loads_again() {
    let text = "grpc:\n  tls:\n    cert_file: /c\n    key_file: /k\n    client_ca_file: /a\n    \
                client_san: ['spiffe://mesh/*', '*.edge.example']\n    \
                domain_san: {pay: 'spiffe://mesh/ns/pay/*,ops.example', 'a b': x}\n";
    let dir = tempfile::tempdir().unwrap();
    let load = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        config::load(&Sources { file: Some(path), ..Sources::default() }).unwrap()
    };
    let loaded = load("tollgate.yaml", text);
    let again = load("printed.yaml", &loaded.to_yaml());
    assert_eq!(again.settings.changed(&loaded.settings), Vec::<String>::new());
    assert_eq!(again.settings.grpc.tls.domain_san.len(), 2);
}

#[test]
fn files_that_cannot_be_used_end_the_start_and_are_named() {
    let house = House::new();
    let foreign = house.pair(&["foreign.example"]);
    let key = foreign.key.to_str().unwrap().to_owned();
    for (cert, key, part) in [
        ("server.crt", key, "admin.tls.key_file: the key does not fit the certificate in"),
        ("server.crt", "/none".into(), "admin.tls.key_file: /none cannot be read"),
        ("server.key", house.path("server.key"), "admin.tls.cert_file: "),
        ("server.crt", house.path("ca.crt"), "has no private key"),
        ("server.crt", String::new(), "admin.tls.cert_file: set admin.tls.key_file too"),
    ] {
        let mut command = command();
        command.args(["--set", &house.file("admin", "cert_file", cert)]);
        if !key.is_empty() {
            command.args(["--set", &format!("admin.tls.key_file={key}")]);
        }
        for listener in ["grpc", "admin", "http"] {
            command.args(["--set", &format!("{listener}.listen=127.0.0.1:0")]);
        }
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(part), "{part:?} in {said}");
    }
}
