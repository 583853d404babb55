//! The ceiling: a tonic server that answers every request with OK and one status, on the same runtime shape as
//! tollgate. What tollgate takes beside it is the price of a decision.

#![allow(clippy::unwrap_used, reason = "a benchmark may panic")]

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use tokio::runtime::Builder;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tollgate::edge::pb::rate_limit_response::{Code, DescriptorStatus};
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
        let status = DescriptorStatus { code: Code::Ok.into(), ..DescriptorStatus::default() };
        Ok(Response::new(RateLimitResponse {
            overall_code: Code::Ok.into(),
            statuses: vec![status],
            ..RateLimitResponse::default()
        }))
    }
}

/// `bare-tonic ADDRESS [CORES]`
fn main() {
    let mut args = std::env::args().skip(1);
    let address: SocketAddr = args.next().unwrap().parse().unwrap();
    let cores: usize = args.next().map_or(1, |cores| cores.parse().unwrap());
    let listener = TcpListener::bind(address).unwrap();
    let doors: Vec<_> = (0..cores)
        .map(|_| {
            let (door, arrivals) = unbounded_channel();
            thread::spawn(move || serve(arrivals));
            door
        })
        .collect();
    for (stream, door) in listener.incoming().zip(doors.iter().cycle()) {
        let stream = stream.unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_nonblocking(true).unwrap();
        door.send(stream).unwrap();
    }
}

fn serve(arrivals: UnboundedReceiver<TcpStream>) {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let incoming = UnboundedReceiverStream::new(arrivals).map(tokio::net::TcpStream::from_std);
        tonic::transport::Server::builder()
            .add_service(RateLimitServiceServer::new(AlwaysOk))
            .serve_with_incoming(incoming)
            .await
            .unwrap();
    });
}
