//! Keeps a stream to the control plane open, and answers its responses.
//!
//! A silent stream is never given up: a control plane without policies sends nothing. What is in
//! force stays in force while there is no stream.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::acks::{Acks, ContentHash, Known, hash};
use super::backoff::Backoff;
use super::connect::connect;
use super::grace::Grace;
use super::kept::Kept;
use super::offer::{FirstResponse, Offer};
use super::pb::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use super::pb::{DiscoveryRequest, DiscoveryResponse};
use super::requests::{request, subscribe};
use super::resources::{Contents, Sources, TYPE_URL, read, with};
use super::settings::{Server, XdsSettings};
use crate::domain::{Clock as _, WallClock};
use crate::outward::chain;
use crate::policy::Files;
use crate::telemetry::metrics::Metrics;

/// A stream is up when it has lasted for this long. A peer that refuses the certificate of tollgate
/// says so only after the handshake.
const UP_AFTER: Duration = Duration::from_secs(1);

/// Requests that wait to be sent.
const QUEUED_REQUESTS: usize = 4;

/// The subscription to the policies of a control plane.
#[derive(Debug)]
pub struct Subscription {
    server: Server,
    settings: XdsSettings,
    merge_domains: bool,
    offers: mpsc::Sender<Offer>,
    metrics: Arc<Metrics>,
    first: FirstResponse,
    kept: Option<Kept>,
    acks: Acks,
    /// The policies of the last good response.
    latest: Sources,
    /// These, and those whose removal waits.
    in_force: Sources,
    /// A stream is up.
    up: bool,
    /// The causes of failures that were logged since a stream was up.
    logged: BTreeSet<String>,
}

/// An open stream.
struct Stream {
    requests: mpsc::Sender<DiscoveryRequest>,
    responses: Streaming<DiscoveryResponse>,
    grace: Grace,
    /// A response that came while the answer to another one was delayed.
    early: Option<DiscoveryResponse>,
}

/// The end of a stream.
enum End {
    /// In order, after a response.
    Clean,
    /// With this cause.
    Failed(String),
}

impl Subscription {
    pub(super) fn new(
        server: Server,
        settings: XdsSettings,
        merge_domains: bool,
        offers: mpsc::Sender<Offer>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            server,
            settings,
            merge_domains,
            offers,
            metrics,
            first: FirstResponse::default(),
            kept: None,
            acks: Acks::default(),
            latest: Sources::new(),
            in_force: Sources::new(),
            up: false,
            logged: BTreeSet::new(),
        }
    }

    /// The same that keeps good responses in `kept`, and begins with the last one of them.
    pub(super) fn keeping(self, kept: Option<Kept>) -> Self {
        Self { kept, ..self }
    }

    /// The first response, for those who wait for it.
    pub fn first(&self) -> FirstResponse {
        self.first.clone()
    }

    /// Serves the feed until it is dropped.
    pub async fn run(mut self) {
        self.begin_with_kept().await;
        let mut backoff = Backoff::new(self.settings.backoff.clone());
        loop {
            let end = self.stream(&mut backoff).await;
            self.note_down(&end);
            let chance = fastrand::f64();
            sleep(match end {
                End::Clean => backoff.ended(chance),
                End::Failed(_) => backoff.failed(chance),
            })
            .await;
        }
    }

    /// Puts the last good response in force, as long as there is no other.
    async fn begin_with_kept(&mut self) {
        let Some(kept) = &self.kept else { return };
        let Some(resources) = kept.load().await else { return };
        let merge = self.merge_domains;
        let Ok(contents) = spawn_blocking(move || read(resources, merge)).await else { return };
        let domains = contents.sources.len();
        if self.offer(contents.files(&Sources::new())).await.is_ok() {
            tracing::info!(domains, "serving the last policies of the control plane from Redis");
            self.metrics.xds.stale.set(1);
            self.in_force.clone_from(&contents.sources);
            self.latest = contents.sources;
            self.first.note();
        }
    }

    /// One stream, from the connection to its end.
    async fn stream(&mut self, backoff: &mut Backoff) -> End {
        let channel = match connect(&self.server, &self.settings).await {
            Ok(channel) => channel,
            Err(cause) => return End::Failed(cause),
        };
        let mut stream = match self.open(channel).await {
            Ok(stream) => stream,
            Err(status) => return failed(&status),
        };
        let mut responded = false;
        let up_at = Instant::now() + UP_AFTER;
        loop {
            let response = if let Some(early) = stream.early.take() {
                Ok(Some(early))
            } else {
                tokio::select! {
                    response = stream.responses.message() => response,
                    () = sleep_until(up_at), if !self.up => {
                        self.note_up();
                        continue;
                    }
                    () = until(stream.grace.ends()) => {
                        stream.grace.end();
                        self.remove_held().await;
                        continue;
                    }
                }
            };
            match response {
                Ok(Some(response)) if response.type_url == TYPE_URL => {
                    responded = true;
                    backoff.reset();
                    self.note_up();
                    self.answer(response, &mut stream).await;
                    self.first.note();
                }
                // Nothing was asked about it.
                Ok(Some(response)) => {
                    tracing::debug!(type_url = response.type_url, "a response of another type");
                }
                Ok(None) if responded => return End::Clean,
                Ok(None) => return End::Failed("the stream ended without a response".to_owned()),
                Err(status) => return failed(&status),
            }
        }
    }

    /// Opens a stream and asks for the policies. The control plane may be silent for as long as it
    /// has none, also with the headers of its answer.
    async fn open(&mut self, channel: Channel) -> Result<Stream, Status> {
        let (requests, outgoing) = mpsc::channel(QUEUED_REQUESTS);
        let answer = self.acks.open();
        let first = request(&self.settings, answer);
        // There is room: it is the first one.
        let _ = requests.send(first).await;
        let request = subscribe(&self.settings, ReceiverStream::new(outgoing));
        let mut client = AggregatedDiscoveryServiceClient::new(channel)
            .max_decoding_message_size(self.settings.max_message_bytes);
        let mut call = Box::pin(client.stream_aggregated_resources(request));
        let response = tokio::select! {
            response = &mut call => response?,
            () = sleep(UP_AFTER) => {
                self.note_up();
                call.await?
            }
        };
        let responses = response.into_inner();
        Ok(Stream { requests, responses, grace: Grace::default(), early: None })
    }

    /// Puts a response in force or refuses it, and says so.
    async fn answer(&mut self, response: DiscoveryResponse, stream: &mut Stream) {
        let now = Instant::now();
        stream.grace.note(now);
        let DiscoveryResponse { version_info: version, nonce, resources, .. } = response;
        let content = hash(&resources);
        let answer = match self.acks.look_up(&content) {
            Known::InForce => {
                self.metrics.xds.unchanged.inc();
                self.acks.accept(content, version, nonce)
            }
            Known::Refused { error, delay } => {
                self.metrics.xds.refused.inc();
                stream.early = delayed(delay, content, &mut stream.responses).await;
                self.acks.refuse(content, nonce, error)
            }
            Known::New => {
                let merge = self.merge_domains;
                let copy = self.kept.is_some().then(|| resources.clone());
                let read = spawn_blocking(move || read(resources, merge)).await;
                let held =
                    if stream.grace.holds() { self.in_force.clone() } else { Sources::new() };
                let outcome = match read {
                    Ok(contents) => self.put_in_force(contents, &held).await,
                    Err(error) => Err(error.to_string()),
                };
                if let (Ok(()), Some(kept), Some(copy)) = (&outcome, &self.kept, copy) {
                    kept.keep(copy).await;
                }
                match outcome {
                    Ok(()) => self.acks.accept(content, version, nonce),
                    Err(error) => self.acks.refuse(content, nonce, error),
                }
            }
        };
        if answer.error.is_none() {
            let now = Duration::from_micros(WallClock.now().as_micros()).as_secs();
            self.metrics.xds.last_accepted.set(i64::try_from(now).unwrap_or(i64::MAX));
            self.metrics.xds.stale.set(0);
        }
        // Where the stream has ended, reading from it says so.
        let _ = stream.requests.send(request(&self.settings, answer)).await;
    }

    /// Puts `contents` in force, and `held` domains beside them.
    async fn put_in_force(&mut self, contents: Contents, held: &Sources) -> Result<(), String> {
        let outcome = self.offer(contents.files(held)).await;
        match outcome {
            Ok(()) => {
                self.metrics.xds.ok.inc();
                self.in_force = with(&contents.sources, held);
                self.latest = contents.sources;
            }
            Err(_) => _ = self.metrics.xds.refused.inc(),
        }
        outcome
    }

    /// Removes the domains that the last good response does not have.
    async fn remove_held(&mut self) {
        if self.in_force.len() == self.latest.len() {
            return;
        }
        let latest = Files::of(self.latest.values().cloned().collect());
        // The writer logs why it does not.
        if self.offer(latest).await.is_ok() {
            self.in_force = self.latest.clone();
        }
    }

    async fn offer(&self, files: Files) -> Result<(), String> {
        let (outcome, settled) = oneshot::channel();
        let sent = self.offers.send(Offer { files, outcome }).await;
        let stops = || "tollgate stops".to_owned();
        if sent.is_err() { Err(stops()) } else { settled.await.unwrap_or_else(|_| Err(stops())) }
    }

    fn note_up(&mut self) {
        if !self.up {
            self.up = true;
            self.logged.clear();
            self.metrics.xds.connected.set(1);
            tracing::info!(server = %self.server, "the stream of the control plane is up");
        }
    }

    fn note_down(&mut self, end: &End) {
        let was_up = std::mem::take(&mut self.up);
        self.metrics.xds.connected.set(0);
        let server = &self.server;
        match end {
            End::Clean => tracing::info!(%server, "the control plane has ended the stream"),
            End::Failed(cause) if was_up || !self.logged.contains(cause) => {
                self.logged.insert(cause.clone());
                tracing::warn!(
                    %server,
                    cause,
                    "no stream of the control plane; its last policies stay, and tollgate tries on"
                );
            }
            End::Failed(cause) => tracing::debug!(%server, cause, "still no stream"),
        }
    }
}

/// Waits for `delay` before a NACK. A response of other content ends the wait, and is returned.
async fn delayed(
    delay: Duration,
    content: ContentHash,
    responses: &mut Streaming<DiscoveryResponse>,
) -> Option<DiscoveryResponse> {
    let end = Instant::now() + delay;
    // An error is met again by the next read.
    let response = tokio::select! {
        () = sleep_until(end) => return None,
        response = responses.message() => response.ok().flatten()?,
    };
    if response.type_url == TYPE_URL && hash(&response.resources) == content {
        sleep_until(end).await;
    }
    Some(response)
}

fn failed(status: &Status) -> End {
    End::Failed(format!("{:?}: {}", status.code(), chain(status)))
}

/// Waits until `time`; for ever without one.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
