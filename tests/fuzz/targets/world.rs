//! A service over a store in memory, whose clock stands still.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tollgate::domain::{ManualClock, Timestamp};
use tollgate::edge::grpc::response::Responder;
use tollgate::edge::grpc::rls::Rls;
use tollgate::edge::grpc::settings::{HeaderStyle, ResponseSettings};
use tollgate::limiter::advice::AdviceSettings;
use tollgate::limiter::denied::DeniedLines;
use tollgate::limiter::events::{EventSettings, LimitEvents};
use tollgate::limiter::holds::{HoldSettings, Holds};
use tollgate::limiter::key::{KeyMaker, SensitiveHasher};
use tollgate::limiter::layers::Layers;
use tollgate::limiter::layers::failover::Failover;
use tollgate::limiter::mode::{KillSwitch, ModeLayer};
use tollgate::limiter::request::Bounds;
use tollgate::limiter::resolve::{Clients, Resolver};
use tollgate::limiter::snapshot::Policies;
use tollgate::limiter::top::TopCallers;
use tollgate::limiter::{Limiter, Shared};
use tollgate::limits::Client;
use tollgate::limits::directory::Directory;
use tollgate::policy::{Defaults, OnStoreFailure, Options, Source, compile};
use tollgate::store::MemoryStore;
use tollgate::telemetry::metrics::{EventMetrics, Metrics};

pub type Store = MemoryStore<Arc<ManualClock>>;

/// Every key of the format, and the domains of the seeds.
const POLICIES: [&str; 2] = [
    include_str!("../../fixtures/policies/valid/every-key.yaml"),
    include_str!("../../../deploy/policies/edge.yaml"),
];

/// A client of a domain of these policies.
const CLIENT: &[u8] = br#"{"domain":"every-key","entries":[["client","own"]],
    "limits":[{"rate":{"requests_per_unit":3,"unit":"minute","unit_multiplier":1}}],
    "metadata":{"plan":"own"},"updated_at":1}"#;

const NOW: Timestamp = Timestamp::from_micros(1_795_000_000_000_000);

/// What all services share. None of it changes an answer.
static SHARED: LazyLock<Arc<Shared>> = LazyLock::new(|| {
    let sources = POLICIES.map(|text| Source::new("policies", text));
    let set = compile(&sources, &Options::default()).expect("sound policies").set;
    let metrics = Arc::new(Metrics::new(100));
    let directory = Directory::default();
    directory.put(Client::from_record(CLIENT, 1).expect("a sound record"));
    let clock = Arc::new(ManualClock::at(NOW));
    Arc::new(Shared {
        policies: Policies::new(set, Arc::clone(&metrics)),
        modes: KillSwitch::new(ModeLayer::default()),
        bounds: Bounds::default(),
        resolver: Resolver {
            keys: KeyMaker::new("tollgate:", SensitiveHasher::new(b"")),
            defaults: Defaults::default(),
            clients: Clients::new(Arc::new(directory), clock.clone()),
        },
        metrics,
        events: LimitEvents::new(&EventSettings::default(), clock.clone(), EventMetrics::default()),
        top: TopCallers::new(100, clock),
        holds: Arc::new(Holds::new(&HoldSettings::default(), Arc::default())),
        denied: DeniedLines::new(10),
    })
});

/// A service whose counters are empty.
pub fn service(headers: HeaderStyle) -> Rls<Store> {
    let metrics = || Arc::clone(&SHARED.metrics);
    let store = MemoryStore::new(1_000, Arc::new(ManualClock::at(NOW)));
    let layers = Layers::bare(Failover::new(store, OnStoreFailure::Deny, metrics()));
    let responder = Responder {
        settings: ResponseSettings { headers, ..ResponseSettings::default() },
        hasher: SensitiveHasher::new(b""),
        delay_header: AdviceSettings::default().delay_header,
    };
    let limiter = Limiter::new(Arc::clone(&SHARED), layers);
    Rls::new(limiter, Arc::new(responder), metrics(), Duration::from_mins(1).into())
}

/// The metrics of all services.
pub fn metrics() -> Arc<Metrics> {
    Arc::clone(&SHARED.metrics)
}

/// Waits for a future that needs timers.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    thread_local!(static RUNTIME: Runtime =
        Builder::new_current_thread().enable_time().build().expect("a runtime"));
    RUNTIME.with(|runtime| runtime.block_on(future))
}
