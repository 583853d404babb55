//! A control plane: one aggregated stream at a time, whose responses the test pushes.

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use prost_types::Any;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream, UnboundedReceiverStream};
use tokio_stream::{Stream, StreamExt as _};
use tollgate::control::feeds::xds::pb::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use tollgate::control::feeds::xds::pb::{DiscoveryRequest, DiscoveryResponse};
use tonic::metadata::MetadataMap;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

pub const TYPE_URL: &str = "type.googleapis.com/ratelimit.config.ratelimit.v3.RateLimitConfig";

/// Longer than anything that works takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running control plane. Dropped, it cuts its connections.
pub struct Ads {
    pub at: SocketAddr,
    runtime: Option<Runtime>,
    shared: Arc<Shared>,
    events: Receiver<Event>,
}

/// What a client does.
#[derive(Debug)]
pub enum Event {
    /// It has shaken hands with this certificate.
    Certificate(Vec<u8>),
    /// It has opened a stream with these headers.
    Opened(MetadataMap),
    Request(Box<DiscoveryRequest>),
}

struct Shared {
    events: Sender<Event>,
    /// Those of the stream that was opened last.
    responses: Mutex<Option<UnboundedSender<Result<DiscoveryResponse, Status>>>>,
}

impl Ads {
    /// Without TLS, on a free port.
    pub fn start() -> Self {
        Self::at("127.0.0.1:0".parse().unwrap(), None)
    }

    /// At this address, over TLS or in clear.
    pub fn at(address: SocketAddr, tls: Option<ServerConfig>) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (sender, events) = channel();
        let shared = Arc::new(Shared { events: sender, responses: Mutex::default() });
        let listener = bind(address);
        listener.set_nonblocking(true).unwrap();
        let at = listener.local_addr().unwrap();
        let listener = {
            let _inside = runtime.enter();
            TcpListener::from_std(listener).unwrap()
        };
        let service = AggregatedDiscoveryServiceServer::new(Service(Arc::clone(&shared)));
        let server = Server::builder().add_service(service);
        match tls {
            None => {
                runtime.spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
            }
            Some(tls) => {
                let (sender, accepted) = tokio::sync::mpsc::channel(16);
                let accepted = ReceiverStream::new(accepted).map(Ok::<_, std::io::Error>);
                runtime.spawn(server.serve_with_incoming(accepted));
                let (acceptor, events) = (TlsAcceptor::from(Arc::new(tls)), shared.events.clone());
                runtime.spawn(async move {
                    loop {
                        let (stream, _) = listener.accept().await.unwrap();
                        let Ok(stream) = acceptor.accept(stream).await else { continue };
                        let shown = stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
                        drop(events.send(Event::Certificate(shown)));
                        drop(sender.send(stream).await);
                    }
                });
            }
        }
        Self { at, runtime: Some(runtime), shared, events }
    }

    /// The next event, within the time.
    pub fn event_within(&self, time: Duration) -> Option<Event> {
        match self.events.recv_timeout(time) {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => panic!("the control plane has ended"),
        }
    }

    fn event(&self) -> Event {
        self.event_within(PATIENCE).expect("the client does something")
    }

    /// The next request within the time; other events are passed over.
    pub fn request_within(&self, time: Duration) -> Option<DiscoveryRequest> {
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if let Event::Request(request) = self.event_within(left)? {
                return Some(*request);
            }
        }
    }

    /// The next request; other events are passed over.
    pub fn request(&self) -> DiscoveryRequest {
        self.request_within(PATIENCE).expect("a request")
    }

    /// The certificate with which the next client shakes hands.
    pub fn certificate(&self) -> Vec<u8> {
        loop {
            if let Event::Certificate(shown) = self.event() {
                return shown;
            }
        }
    }

    /// The headers of the next stream.
    pub fn opened(&self) -> MetadataMap {
        loop {
            if let Event::Opened(headers) = self.event() {
                return headers;
            }
        }
    }

    /// Waits for the first request of a stream, which has neither version nor nonce.
    pub fn subscribed(&self) -> DiscoveryRequest {
        let request = self.request();
        assert_eq!(request.type_url, TYPE_URL);
        assert_eq!((&*request.version_info, &*request.response_nonce), ("", ""), "{request:?}");
        assert_eq!(request.error_detail, None);
        request
    }

    /// Sends a response of these resources.
    pub fn push(&self, version: &str, nonce: &str, resources: Vec<Any>) {
        self.send(response(version, nonce, resources));
    }

    pub fn send(&self, response: DiscoveryResponse) {
        let responses = self.shared.responses.lock().unwrap();
        responses.as_ref().expect("a stream").send(Ok(response)).expect("an open stream");
    }

    /// Ends the stream in order.
    pub fn end_stream(&self) {
        drop(self.shared.responses.lock().unwrap().take());
    }

    /// Sends a response, and expects it to be accepted.
    pub fn accepted(&self, version: &str, nonce: &str, resources: Vec<Any>) {
        self.push(version, nonce, resources);
        self.acked(version, nonce);
    }

    /// Expects that the next request accepts this response.
    pub fn acked(&self, version: &str, nonce: &str) {
        let request = self.request();
        let found = (&*request.version_info, &*request.response_nonce, &request.error_detail);
        assert_eq!(found, (version, nonce, &None));
    }

    /// Expects that the next request refuses this response; the reason.
    pub fn nacked(&self, version: &str, nonce: &str) -> String {
        let request = self.request();
        assert_eq!((&*request.version_info, &*request.response_nonce), (version, nonce));
        let status = request.error_detail.expect("an error");
        assert_eq!(status.code, 3);
        status.message
    }

    /// Cuts all connections, and listens no more.
    pub fn stop(mut self) -> SocketAddr {
        self.runtime.take().unwrap().shutdown_background();
        self.at
    }
}

impl Drop for Ads {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A listener at this address, once the one before has gone.
fn bind(address: SocketAddr) -> std::net::TcpListener {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match std::net::TcpListener::bind(address) {
            Ok(listener) => return listener,
            Err(error) => assert!(Instant::now() < deadline, "{address}: {error}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub fn response(version: &str, nonce: &str, resources: Vec<Any>) -> DiscoveryResponse {
    DiscoveryResponse {
        version_info: version.to_owned(),
        resources,
        type_url: TYPE_URL.to_owned(),
        nonce: nonce.to_owned(),
    }
}

struct Service(Arc<Shared>);

type Responses = std::pin::Pin<Box<dyn Stream<Item = Result<DiscoveryResponse, Status>> + Send>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for Service {
    type StreamAggregatedResourcesStream = Responses;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Responses>, Status> {
        let (sender, mut responses) = unbounded_channel();
        *self.0.responses.lock().unwrap() = Some(sender);
        let (headers, _, requests) = request.into_parts();
        let events = self.0.events.clone();
        drop(events.send(Event::Opened(headers)));
        tokio::spawn(forward(requests, events));
        Ok(Response::new(after_the_first(&mut responses).await.map_or_else(
            || -> Responses { Box::pin(tokio_stream::empty()) },
            |first| {
                Box::pin(tokio_stream::once(first).chain(UnboundedReceiverStream::new(responses)))
            },
        )))
    }
}

/// The first response, before which there are no headers.
async fn after_the_first<T>(responses: &mut UnboundedReceiver<T>) -> Option<T> {
    responses.recv().await
}

async fn forward(mut requests: Streaming<DiscoveryRequest>, events: Sender<Event>) {
    while let Ok(Some(request)) = requests.message().await {
        drop(events.send(Event::Request(Box::new(request))));
    }
}
