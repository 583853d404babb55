//! gRPC for Rust: what `clients` has of other languages.

use tokio::task::JoinSet;
use tokio_stream::StreamExt as _;
use tollgate::edge::pb::rate_limit_response::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::clients::options;
use crate::many;
use crate::support::engines::ENGINES;
use crate::support::grpc::{Client, ask, codes};
use crate::support::tollgate::{Tollgate, request};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tonic_sees_every_kind_of_call_on_one_connection() {
    for engine in ENGINES {
        let tollgate = options(engine).start();
        let channel = Tollgate::channel(tollgate.at.grpc).await;
        let mut client = Client::new(channel.clone());
        let two = request("d", &[&[("two", "tonic")]]);
        let found = codes(&mut client, &two, 3).await;
        assert_eq!(found, [Code::Ok, Code::Ok, Code::OverLimit], "{engine}");

        let mut health = HealthClient::new(channel.clone());
        let all = || HealthCheckRequest { service: String::new() };
        let status = health.check(all()).await.unwrap().into_inner().status();
        assert_eq!(status, ServingStatus::Serving, "{engine}");
        let nobody = HealthCheckRequest { service: "nobody".to_owned() };
        assert_eq!(health.check(nobody).await.unwrap_err().code(), tonic::Code::NotFound);
        // Dropped, which cancels it.
        let mut watched = health.watch(all()).await.unwrap().into_inner();
        assert!(watched.next().await.unwrap().is_ok(), "{engine}");
        drop(watched);

        let list = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let mut reflection = ServerReflectionClient::new(channel.clone());
        let answers = reflection.server_reflection_info(tokio_stream::iter([list])).await.unwrap();
        let answer = answers.into_inner().next().await.unwrap().unwrap().message_response;
        let Some(MessageResponse::ListServicesResponse(list)) = answer else {
            panic!("{answer:?}")
        };
        assert!(list.service.len() >= 3, "{engine}: {list:?}");

        let large = request("d", &[&[("many", "v".repeat(600_000).as_str())]]);
        assert_eq!(ask(&mut client, large).await.overall_code(), Code::Ok, "{engine}");
        let mut together = JoinSet::new();
        for _ in 0..at_once(engine) {
            let mut client = client.clone();
            together.spawn(async move { client.should_rate_limit(many()).await });
        }
        for answer in together.join_all().await {
            let answer = answer.unwrap_or_else(|error| panic!("{engine}: {error:?}"));
            assert_eq!(answer.into_inner().overall_code(), Code::Ok, "{engine}");
        }
        let connections = tollgate.metric("tollgate_connections_total");
        // The other is that of the metrics.
        assert_eq!(connections, Some(2.0), "{engine}: {}", tollgate.log().join("\n"));
        assert!(tollgate.errors().is_empty(), "{:?}", tollgate.errors());
    }
}

/// The calls that a client of tonic may make at once.
///
/// h2 closes a connection with `ENHANCE_YOUR_CALM` when half its window, 128 KiB, is taken by DATA
/// frames that nobody has read yet, a small one counting for 256 bytes. tonic ends a call with a
/// frame of its own, so that its message is such a frame; those of most clients end the call and do
/// not count.
fn at_once(engine: &str) -> usize {
    if engine == "hyper" { 400 } else { 1_000 }
}
