//! The commands that call a listener over TLS: `tollgate admin` and `tollgate load`.

use std::process::Output;

use crate::house::House;
use crate::support::tollgate::command;

fn run(args: &[&str]) -> Output {
    command().args(args).output().unwrap()
}

#[test]
fn admin_and_load_reach_listeners_with_certificates() {
    let house = House::new();
    let tollgate = house.mutual(&["grpc", "admin"]).start();
    let pair = house.pair(&["ops.example"]);
    let (ca, cert, key) = (house.path("ca.crt"), pair.cert, pair.key);
    let (cert, key) = (cert.to_str().unwrap(), key.to_str().unwrap());
    let tls = ["--ca-file", &ca, "--cert-file", cert, "--key-file", key];
    let admin = format!("https://{}", tollgate.at.admin);
    let limited = run(&[
        &["admin", "--address", &admin][..],
        &tls,
        &["limit", "d", "k=v", "5/hour"],
    ]
    .concat());
    assert!(limited.status.success(), "{limited:?}");
    let grpc = format!("https://{}", tollgate.at.grpc);
    let load = ["load", &grpc, "--duration", "500ms", "--json", "--connections", "2"];
    let loaded = run(&[&load[..], &tls].concat());
    let said = String::from_utf8_lossy(&loaded.stdout).into_owned();
    assert!(loaded.status.success() && said.contains("\"errors\":0"), "{loaded:?}");

    let stranger = run(&["admin", "--address", &admin, "--ca-file", &ca, "list"]);
    assert_eq!(stranger.status.code(), Some(69), "{stranger:?}");
    let plain = format!("http://{}", tollgate.at.admin);
    let refused = run(&["admin", "--address", &plain, "--ca-file", &ca, "list"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("write https:// for TLS"), "{said}");
}
