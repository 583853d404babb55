//! The ceiling of a service that tonic generates.

use std::net::TcpStream;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tollgate::edge::pb::rate_limit_service_server::{RateLimitService, RateLimitServiceServer};
use tollgate::edge::pb::{RateLimitRequest, RateLimitResponse};
use tonic::{Request, Response, Status};

struct AlwaysOk;

#[tonic::async_trait]
impl RateLimitService for AlwaysOk {
    async fn should_rate_limit(
        &self,
        _: Request<RateLimitRequest>,
    ) -> Result<Response<RateLimitResponse>, Status> {
        Ok(Response::new(super::response()))
    }
}

pub(super) async fn serve(arrivals: UnboundedReceiver<TcpStream>) {
    let incoming = UnboundedReceiverStream::new(arrivals).map(tokio::net::TcpStream::from_std);
    tonic::transport::Server::builder()
        .add_service(RateLimitServiceServer::new(AlwaysOk))
        .serve_with_incoming(incoming)
        .await
        .unwrap();
}
