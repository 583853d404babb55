//! One replica in process: the admin services on a real socket, decisions beside them.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tollgate::config::Secret;
use tollgate::control::layered::{Layered, Origin, Since};
use tollgate::control::registry::Registry;
use tollgate::control::writer::Writer;
use tollgate::control::{Control, calendar};
use tollgate::domain::{CalendarClock, Clock as _, Hits, ManualClock, Timestamp, Verdict};
use tollgate::edge::admin::auth::{Guard, Guarded};
use tollgate::edge::admin::pb::client_service_client::ClientServiceClient;
use tollgate::edge::admin::pb::manage_clients_request::{Action, Upsert};
use tollgate::edge::admin::pb::plan_service_client::PlanServiceClient;
use tollgate::edge::admin::pb::policy_service_client::PolicyServiceClient;
use tollgate::edge::admin::pb::{self, ManageClientsRequest, ManageClientsResponse};
use tollgate::edge::admin::{Admin, AdminSettings, SERVICE_NAMES, routes};
use tollgate::edge::grpc::server::serve_admin;
use tollgate::edge::listener::acceptor::Acceptor;
use tollgate::edge::listener::{Bounds as ListenerBounds, ListenerSettings};
use tollgate::limiter::denied::DeniedLines;
use tollgate::limiter::events::{EventSettings, LimitEvents};
use tollgate::limiter::holds::{HoldSettings, Holds};
use tollgate::limiter::key::{KeyMaker, SensitiveHasher};
use tollgate::limiter::layers::Layers;
use tollgate::limiter::layers::failover::Failover;
use tollgate::limiter::mode::KillSwitch;
use tollgate::limiter::request::{Bounds, Descriptor, Entry, Request};
use tollgate::limiter::resolve::{Clients, Resolver};
use tollgate::limiter::snapshot::Policies;
use tollgate::limiter::status::Decision;
use tollgate::limiter::top::TopCallers;
use tollgate::limiter::{Limiter, Shared};
use tollgate::limits::directory::Directory;
use tollgate::policy::{Defaults, Files, OnStoreFailure, Options, Source};
use tollgate::store::MemoryStore;
use tollgate::telemetry::metrics::{EventMetrics, Metrics};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_health::server::HealthReporter;

use crate::registry::MapRegistry;
use crate::traffic::POLICY;

/// How often the clock of the registry is read.
const CALENDAR_EVERY: Duration = Duration::from_millis(10);

/// How long a store may take, and a connection be silent.
const PATIENCE: Duration = Duration::from_secs(5);

pub type Store = Arc<MemoryStore<Arc<ManualClock>>>;

/// The parts that replicas have in common.
pub struct World<R = MapRegistry> {
    pub registry: Arc<R>,
    pub store: Store,
    /// That of the counters, and of the machine that every replica runs on.
    pub clock: Arc<ManualClock>,
    /// The size of the rank of each replica.
    pub top_callers: usize,
}

impl World {
    /// One whose registry has the same clock as all else.
    pub fn new() -> Self {
        let clock = Arc::new(ManualClock::at(Timestamp::from_micros(1_700_000_000_000_000)));
        Self::on(Arc::new(MapRegistry::new(Arc::clone(&clock))), clock)
    }
}

impl<R: Registry> World<R> {
    pub fn on(registry: Arc<R>, clock: Arc<ManualClock>) -> Self {
        let store = Arc::new(MemoryStore::new(100_000, Arc::clone(&clock)));
        Self { registry, store, clock, top_callers: 1_000 }
    }

    pub fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    /// In `seconds` from now, as a timestamp.
    pub fn time_in(&self, seconds: i64) -> prost_types::Timestamp {
        let now = i64::try_from(self.clock.now().as_micros() / 1_000_000).unwrap();
        prost_types::Timestamp { seconds: now + seconds, nanos: 0 }
    }

    pub async fn replica(&self) -> Replica<R> {
        self.replica_with(None).await
    }

    fn events(&self) -> LimitEvents {
        let clock = Arc::clone(&self.clock);
        LimitEvents::new(&EventSettings::default(), clock, EventMetrics::default())
    }

    pub async fn replica_with(&self, token: Option<&str>) -> Replica<R> {
        let files = Files::of(vec![Source::new("edge.yaml", POLICY)]);
        let mut layered = Layered::new(Options::default());
        let replaced = layered.replace(Origin::Files, &files, Since::default()).unwrap();
        let metrics = Arc::new(Metrics::new(100));
        let calendar = Arc::new(CalendarClock::new(Arc::clone(&self.clock)));
        let shared = Arc::new(Shared {
            policies: Policies::new(replaced.set, Arc::clone(&metrics)),
            modes: KillSwitch::default(),
            bounds: small_bounds(),
            resolver: Resolver {
                keys: KeyMaker::new("t:", SensitiveHasher::new(b"key")),
                defaults: Defaults::default(),
                clients: Clients::new(Arc::new(Directory::default()), calendar.clone()),
            },
            metrics: Arc::clone(&metrics),
            events: self.events(),
            top: TopCallers::new(self.top_callers, Arc::clone(&self.clock)),
            holds: Arc::new(Holds::new(&HoldSettings::default(), Arc::default())),
            denied: DeniedLines::new(10),
        });
        let writer = Arc::new(Writer::new(Arc::clone(&shared), layered));
        let limiter = || {
            let layers =
                Failover::new(self.store.clone(), OnStoreFailure::Deny, Arc::clone(&metrics));
            Limiter::new(Arc::clone(&shared), Layers::bare(layers))
        };
        let registry = Arc::clone(&self.registry);
        let control =
            Arc::new(Control::new(registry, Arc::clone(&writer), Duration::from_millis(10)));
        calendar::correct(&*self.registry, &calendar).await.unwrap();
        let following = Arc::clone(&control);
        let following = tokio::spawn(async move {
            let registry = &**following.registry();
            tokio::join!(
                following.follower().run(),
                calendar::run(registry, &calendar, CALENDAR_EVERY)
            );
        });
        control.follower().synced().await;
        let admin = Admin::new(Arc::clone(&control), limiter(), PATIENCE);
        let settings = AdminSettings { token: token.map(Secret::new), ..AdminSettings::default() };
        let channel = serve(routes(Arc::new(admin), Guard::new(&settings))).await;
        Replica {
            clients: ClientServiceClient::new(channel.clone())
                .max_encoding_message_size(64 << 20)
                .max_decoding_message_size(64 << 20),
            plans: PlanServiceClient::new(channel.clone()),
            policies: PolicyServiceClient::new(channel),
            control,
            following,
            limiter: limiter(),
            writer,
            shared,
        }
    }
}

fn small_bounds() -> Bounds {
    Bounds {
        descriptors: 16,
        entries: 4,
        key_bytes: 64,
        value_bytes: 128,
        limits: 64,
        ..Bounds::default()
    }
}

/// Serves operators on a socket, and connects to it.
async fn serve(services: Guarded) -> Channel {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (bounds, metrics) = (bounds(PATIENCE), Arc::new(Metrics::new(0)));
        let acceptor = Acceptor::new(listener, "admin", bounds.clone(), None, metrics);
        let (health, stop) = (HealthReporter::new(), CancellationToken::new());
        serve_admin(acceptor, services, &SERVICE_NAMES, health, bounds, stop).await.unwrap();
    });
    Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

/// A running replica.
pub struct Replica<R = MapRegistry> {
    pub clients: ClientServiceClient<Channel>,
    pub plans: PlanServiceClient<Channel>,
    pub policies: PolicyServiceClient<Channel>,
    pub limiter: Limiter<Store>,
    pub writer: Arc<Writer>,
    pub shared: Arc<Shared>,
    pub control: Arc<Control<R>>,
    following: JoinHandle<()>,
}

impl<R: Registry> Replica<R> {
    /// Catches up with the registry.
    pub async fn follow(&self) {
        let newest = self.control.registry().newest().await.unwrap();
        assert!(self.control.follower().caught_up(newest.revision, Duration::from_secs(10)).await);
    }

    /// From now on it hears of nothing, and its clock is not corrected.
    pub fn stop_following(&self) {
        self.following.abort();
    }

    pub async fn manage(&self, action: Action) -> Result<ManageClientsResponse, Status> {
        let request = ManageClientsRequest { action: Some(action), validate_only: false };
        let answer = self.clients.clone().manage_clients(request).await;
        answer.map(tonic::Response::into_inner)
    }

    pub async fn upsert(&self, clients: Vec<pb::Client>) -> Result<ManageClientsResponse, Status> {
        self.manage(Action::Upsert(Upsert { clients })).await
    }

    pub async fn decide(&self, request: &Request<'_>) -> Decision {
        self.shared.top.tick();
        self.limiter.decide(request, (Instant::now() + PATIENCE).into()).await
    }

    /// How many of `tries` single requests pass, before the first that does not.
    pub async fn admitted(&self, entries: &[(&str, &str)], tries: usize) -> usize {
        for passed in 0..tries {
            let request = request("edge", &[entries]);
            if self.decide(&request).await.verdict == Verdict::Deny {
                return passed;
            }
        }
        tries
    }
}

pub fn request<'m>(domain: &'m str, descriptors: &[&[(&'m str, &'m str)]]) -> Request<'m> {
    let entry =
        |(key, value): &(&'m str, &'m str)| Entry { key: key.as_bytes(), value: value.as_bytes() };
    let descriptor = |entries: &&[(&'m str, &'m str)]| Descriptor {
        entries: entries.iter().map(entry).collect(),
        hits: Hits::Take(1),
        own_hits: false,
        usage: None,
        limit: None,
    };
    Request { domain: domain.as_bytes(), descriptors: descriptors.iter().map(descriptor).collect() }
}

pub fn entries(pairs: &[(&str, &str)]) -> Vec<pb::Entry> {
    pairs
        .iter()
        .map(|(key, value)| pb::Entry {
            key: (*key).to_owned(),
            value: (*value).to_owned(),
            hashed: false,
        })
        .collect()
}

/// So many per minute, the rest left open.
pub fn per_minute(requests_per_unit: u32) -> pb::Limit {
    let requests_per_unit = Some(requests_per_unit);
    pb::Limit { requests_per_unit, unit: pb::Unit::Minute.into(), ..Default::default() }
}

pub fn client(pairs: &[(&str, &str)], limits: Vec<pb::Limit>) -> pb::Client {
    pb::Client { domain: "edge".to_owned(), entries: entries(pairs), limits, ..Default::default() }
}

pub fn name(pairs: &[(&str, &str)]) -> pb::ClientName {
    let domain = "edge".to_owned();
    pb::ClientName { domain, entries: entries(pairs), etag: String::new() }
}

/// The code of an error; `Ok` for none.
pub fn code<T>(answer: &Result<T, Status>) -> Code {
    answer.as_ref().err().map_or(Code::Ok, Status::code)
}

/// Enough for any test.
fn bounds(patient: Duration) -> ListenerBounds {
    ListenerBounds {
        listener: ListenerSettings {
            handshake_timeout: patient,
            message_timeout: patient,
            ..ListenerSettings::default()
        },
        max_age: None,
        grace: patient,
        keepalive_interval: patient,
        keepalive_timeout: patient,
    }
}
