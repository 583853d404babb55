//! A control plane beside files and policies that operators apply.

use std::fs;

use tollgate::edge::pb::rate_limit_response::Code;

use crate::ads::Ads;
use crate::resources::simple;
use crate::support::certs::write;
use crate::support::grpc::codes;
use crate::support::tollgate::{Options, Tollgate, request};

const FILE: &str = "
domain: both
descriptors:
  - {key: k, rate_limit: {unit: hour, requests_per_unit: 1}}
";

/// How many of five requests pass.
async fn admitted(tollgate: &Tollgate, domain: &str) -> usize {
    let mut client = tollgate.client().await;
    let codes = codes(&mut client, &request(domain, &[&[("k", "v")]]), 5).await;
    codes.into_iter().filter(|code| *code == Code::Ok).count()
}

#[tokio::test]
async fn domain_of_a_file_is_that_of_the_file_until_it_goes() {
    let ads = Ads::start();
    let options = Options::serving(FILE).set(format!("xds.server={}", ads.at));
    let tollgate = options
        .set("policies.start_without=true")
        .set("policies.default_algorithm=fixed_window")
        .set("policies.allow_empty=true")
        .start();
    ads.subscribed();
    assert_eq!(admitted(&tollgate, "both").await, 1, "the file is certain before any response");
    let mut client = tollgate.client().await;
    let unknown = client.should_rate_limit(request("xds", &[&[("k", "v")]])).await.unwrap_err();
    assert_eq!(unknown.message(), "no rate limit configuration loaded");

    ads.accepted("1", "a", vec![simple("both", 4), simple("xds", 2)]);
    assert_eq!(admitted(&tollgate, "xds").await, 2);
    assert_eq!(admitted(&tollgate, "both").await, 0, "that of the file, used up");
    write(&tollgate.policies(), &FILE.replace("both", "other"));
    tollgate.signal("HUP");
    tollgate.wait_for("a reload", || tollgate.metric("tollgate_domains") == Some(3.0));
    assert_eq!(admitted(&tollgate, "both").await, 3, "one of four is used");
    assert!(fs::read_to_string(tollgate.policies()).unwrap().contains("other"));

    let version = tollgate.metric("tollgate_policy_version");
    ads.accepted("2", "b", vec![simple("xds", 2), simple("both", 4)]);
    assert_eq!(tollgate.metric("tollgate_policy_version"), version, "still the same content");
}
