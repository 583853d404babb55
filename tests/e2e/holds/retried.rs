//! Calls that Envoy makes twice, because the first answer was UNAVAILABLE.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tollgate::edge::pb::rate_limit_service_client::RateLimitServiceClient;
use tollgate::edge::pb::rate_limit_service_server::{RateLimitService, RateLimitServiceServer};
use tollgate::edge::pb::{RateLimitRequest, RateLimitResponse};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};

use super::edge::{COST, Edge, Version};
use crate::support::wait::until;

/// Passes calls on. The first admission is refused before tollgate sees it, each first delivery of
/// an end after tollgate has answered it.
struct Between {
    tollgate: RateLimitServiceClient<Channel>,
    admissions: Arc<AtomicU64>,
    ends: Arc<AtomicU64>,
}

#[tonic::async_trait]
impl RateLimitService for Between {
    async fn should_rate_limit(
        &self,
        request: Request<RateLimitRequest>,
    ) -> Result<Response<RateLimitResponse>, Status> {
        let request = request.into_inner();
        let mut entries = request.descriptors.iter().flat_map(|d| &d.entries);
        if !entries.any(|entry| &entry.key[..] == b"hold") {
            return match self.admissions.fetch_add(1, Ordering::Relaxed) {
                0 => Err(Status::unavailable("the first admission")),
                _ => self.tollgate.clone().should_rate_limit(request).await,
            };
        }
        let answer = self.tollgate.clone().should_rate_limit(request).await?;
        match self.ends.fetch_add(1, Ordering::Relaxed) % 2 {
            0 => Err(Status::unavailable("the first delivery")),
            _ => Ok(answer),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_envoy_repeats_are_settled_once() {
    let (admissions, ends) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
    let counts = (Arc::clone(&admissions), Arc::clone(&ends));
    let start = Edge::start_before(async |tollgate| between(tollgate, counts).await);
    let Some(edge) = start.await else { return };
    let user = edge.new_user();
    let mut client = edge.client(Version::Two).await;
    assert_eq!(client.get("ok", &[("x-user", &user)]).await.0, 200);
    until("the end was delivered twice", async || {
        (edge.holds("again") == 2 && ends.load(Ordering::Relaxed) == 2).then_some(())
    })
    .await;
    assert_eq!(admissions.load(Ordering::Relaxed), 2, "Envoy asked twice");
    assert_eq!((edge.holds("reserved"), edge.holds("settled")), (2, 2));
    edge.until_settled("twice delivered", &user, COST).await;
    edge.assert_nothing_was_bypassed().await;
}

/// The address of a server before the one at `tollgate`.
async fn between(
    tollgate: SocketAddr,
    (admissions, ends): (Arc<AtomicU64>, Arc<AtomicU64>),
) -> SocketAddr {
    let endpoint = Endpoint::from_shared(format!("http://{tollgate}")).unwrap();
    let tollgate = RateLimitServiceClient::new(endpoint.connect().await.unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status("", tonic_health::ServingStatus::Serving).await;
    let service = RateLimitServiceServer::new(Between { tollgate, admissions, ends });
    let server = Server::builder().add_service(health).add_service(service);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    at
}
