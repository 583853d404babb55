//! Certificates, keys and authorities that change while calls go on: no call fails, and a pair that
//! does not fit changes nothing.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use tollgate::edge::pb::rate_limit_service_client::RateLimitServiceClient;

use crate::house::{House, client, connect, trusting};
use crate::support::certs::{Authority, write};
use crate::support::tollgate::{Options, Tollgate, request};

async fn works(tollgate: &Tollgate, config: tonic::transport::ClientTlsConfig) {
    let mut client = client(tollgate, config).await;
    client.should_rate_limit(request("d", &[&[("k", "v")]])).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changed_files_are_used_by_the_next_connection_and_open_ones_live_on() {
    let house = House::new();
    let tollgate = house.mutual(&["grpc"]).start();
    let pair = house.pair(&["client.example"]);
    let mut early = client(&tollgate, house.caller(Some(&pair))).await;

    // A key of another pair changes nothing and is named once.
    let key = house.path("server.key");
    let own = std::fs::read_to_string(&key).unwrap();
    let foreign = house.pair(&["foreign.example"]);
    write(Path::new(&key), &std::fs::read_to_string(foreign.key).unwrap());
    let line = tollgate.wait_for_log("changed TLS files of the gRPC listener cannot be used");
    assert!(line.contains("grpc.tls.key_file") && line.contains("server.crt"), "{line}");
    works(&tollgate, house.caller(Some(&pair))).await;
    write(Path::new(&key), &own);

    // Another authority for both sides.
    let next = Authority::new("next");
    let ca = next.file(house.dir.path().join("next.crt"));
    next.issue(house.dir.path(), "server", &["127.0.0.1"]);
    next.file(&house.ca);
    tollgate.wait_for_log("the TLS files of the gRPC listener have changed");
    let renewed = next.issue(house.dir.path(), "renewed", &["client.example"]);
    works(&tollgate, trusting(&ca, Some(&renewed))).await;
    let old = connect(tollgate.at.grpc, trusting(&ca, Some(&pair))).await;
    let refused = match old {
        Err(_) => true,
        Ok(channel) => {
            let call = request("d", &[&[("k", "v")]]);
            RateLimitServiceClient::new(channel).should_rate_limit(call).await.is_err()
        }
    };
    assert!(refused, "a certificate of the previous authority");
    early.should_rate_limit(request("d", &[&[("k", "v")]])).await.unwrap();
}

/// As Kubernetes mounts a secret: files are links into `..data`, which is swapped as a whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn directory_that_is_swapped_under_load_fails_no_call() {
    let house = House::new();
    let mount = house.dir.path().join("mount");
    let generation = |number: usize| {
        let dir = mount.join(format!("..{number}"));
        std::fs::create_dir_all(&dir).unwrap();
        house.authority.issue(&dir, "tls", &["127.0.0.1"]);
        symlink(format!("..{number}"), mount.join("..next")).unwrap();
        std::fs::rename(mount.join("..next"), mount.join("..data")).unwrap();
    };
    generation(0);
    for name in ["tls.crt", "tls.key"] {
        symlink(format!("..data/{name}"), mount.join(name)).unwrap();
    }
    let file = |setting: &str, name: &str| house.file("grpc", setting, name);
    let options = Options::serving(crate::house::POLICIES)
        .set(file("cert_file", "mount/tls.crt"))
        .set(file("key_file", "mount/tls.key"));
    let tollgate = options.start();
    let (mut calls, mut swaps, begun) = (0, 0, Instant::now());
    let mut kept = client(&tollgate, house.caller(None)).await;
    while swaps < 2 {
        works(&tollgate, house.caller(None)).await;
        kept.should_rate_limit(request("d", &[&[("k", "v")]])).await.unwrap();
        calls += 1;
        let changed = tollgate.log().iter().filter(|line| line.contains("have changed")).count();
        if changed == swaps && calls % 50 == 0 {
            swaps += 1;
            generation(swaps);
            tollgate.wait_for("the swap is seen", || {
                let log = tollgate.log();
                log.iter().filter(|line| line.contains("have changed")).count() == swaps
            });
        }
        assert!(begun.elapsed() < Duration::from_mins(1), "{swaps} swaps");
    }
    assert!(calls >= 100, "{calls}");
    assert!(tollgate.errors().is_empty(), "{:?}", tollgate.errors());
}
