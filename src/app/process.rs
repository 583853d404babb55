//! The state that the parts of the process share, and the parts that each core builds from it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic_health::server::HealthReporter;

use super::error::AppError;
use crate::config::Settings;
use crate::control::Control;
use crate::control::follower::DEFAULT_POLL;
use crate::control::layered::Layered;
use crate::control::registry::DEFAULT_LOG_CHANGES;
use crate::control::registry::any::AnyRegistry;
use crate::control::registry::embedded::EmbeddedRegistry;
use crate::control::registry::redis::RedisRegistry;
use crate::control::writer::Writer;
use crate::domain::{CalendarClock, Commit, Group, Key, SystemClock};
use crate::edge::admin::auth::Guard;
use crate::edge::grpc::response::Responder;
use crate::edge::grpc::rls::Rls;
use crate::edge::listener::Bounds as ListenerBounds;
use crate::edge::listener::acceptor::Acceptor;
use crate::limiter::key::{KeyMaker, SensitiveHasher};
use crate::limiter::layers::Layers;
use crate::limiter::layers::deny_cache::DenyCache;
use crate::limiter::layers::failover::Failover;
use crate::limiter::layers::leases::Leases;
use crate::limiter::mode::KillSwitch;
use crate::limiter::resolve::{Clients, Resolver};
use crate::limiter::snapshot::Policies;
use crate::limiter::top::TopCallers;
use crate::limiter::{Limiter, Shared};
use crate::policy::PolicySet;
use crate::redis::Connector;
use crate::redis::inspect::Inspection;
use crate::store::redis::{MAX_WAITING, Notices, RedisStore};
use crate::store::{Answer, LimitStore, MemoryStore, StoreError};
use crate::telemetry::metrics::Metrics;

/// The registry's file in the data directory.
const REGISTRY_FILE: &str = "registry.redb";

/// The state that the parts of the process share.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) settings: Settings,
    pub(super) shared: Arc<Shared>,
    /// Brings policies, clients and modes to what is shared.
    pub(super) control: Arc<Control<AnyRegistry>>,
    /// Says which clients have expired.
    pub(super) calendar: Arc<CalendarClock>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) health: HealthReporter,
    /// True if this instance should get traffic.
    pub(super) ready: Arc<AtomicBool>,
    /// Cancelled when connections are to end.
    pub(super) stop: CancellationToken,
    /// The guard of the admin listener.
    pub(super) guard: Guard,
    responder: Arc<Responder>,
    memory: Arc<MemoryStore<SystemClock>>,
    /// The deny cache, which spares Redis requests; none in memory mode.
    denials: Option<Arc<DenyCache>>,
    leases: Option<Arc<Leases>>,
    /// The stores that were made, for their health.
    redis: Mutex<Vec<RedisStore>>,
    /// The log lines that they have in common.
    notices: Notices,
    /// The way to Redis; none in memory mode.
    pub(super) connector: Option<Connector>,
    /// What was found at the server.
    pub(super) inspection: Inspection,
}

/// The store that the settings name.
#[derive(Debug)]
pub(super) enum Store {
    /// One for the process.
    Memory(Arc<MemoryStore<SystemClock>>),
    /// One connection per core.
    Redis(RedisStore),
}

impl LimitStore for Store {
    async fn decide(&self, group: &Group, commit: Commit, deadline: Instant) -> Answer {
        match self {
            Self::Memory(store) => store.decide(group, commit, deadline).await,
            Self::Redis(store) => store.decide(group, commit, deadline).await,
        }
    }

    async fn forget(&self, keys: &[Key], deadline: Instant) -> Result<u32, StoreError> {
        match self {
            Self::Memory(store) => store.forget(keys, deadline).await,
            Self::Redis(store) => store.forget(keys, deadline).await,
        }
    }
}

impl Process {
    /// The registry's connections live on the runtime that calls this.
    pub(super) fn new(
        settings: Settings,
        policies: PolicySet,
        layered: Layered,
    ) -> Result<Self, AppError> {
        let metrics = Arc::new(Metrics::new(settings.metrics.max_series));
        let secret = settings.general.sensitive_key.as_ref().map_or("", |secret| secret.expose());
        let hasher = SensitiveHasher::new(secret.as_bytes());
        let calendar = Arc::new(CalendarClock::new(SystemClock::start()));
        let shared = Shared {
            policies: Policies::new(policies, Arc::clone(&metrics)),
            modes: KillSwitch::new(settings.modes()),
            bounds: settings.bounds.clone(),
            resolver: Resolver {
                keys: KeyMaker::new(&settings.redis.key_prefix, hasher.clone()),
                default_algorithm: settings.policies.default_algorithm,
                clients: Clients::new(Arc::default(), calendar.clone()),
            },
            metrics: Arc::clone(&metrics),
            top: TopCallers::new(settings.admin.top_callers, SystemClock::start()),
        };
        let responder = Responder { settings: settings.response.clone(), hasher };
        let shared = Arc::new(shared);
        let writer = Arc::new(Writer::new(Arc::clone(&shared), layered));
        let shares = settings.redis.is_set();
        // One for the process: it watches files and sentinels on this runtime.
        let connector = shares.then(|| settings.redis.connector()).transpose()?;
        let registry = Arc::new(registry(&settings, connector.clone()));
        Ok(Self {
            control: Arc::new(Control::new(registry, writer, DEFAULT_POLL)),
            calendar,
            shared,
            health: HealthReporter::new(),
            ready: Arc::default(),
            stop: CancellationToken::new(),
            guard: Guard::new(settings.admin.named_tokens()),
            responder: Arc::new(responder),
            memory: Arc::new(MemoryStore::new(
                settings.store.memory_max_keys,
                SystemClock::start(),
            )),
            redis: Mutex::default(),
            notices: Notices::default(),
            connector,
            inspection: Inspection::default(),
            denials: shares
                .then(|| DenyCache::new(settings.deny_cache.max_keys, Arc::clone(&metrics)))
                .filter(|_| settings.deny_cache.max_keys > 0)
                .map(Arc::new),
            leases: shares.then(|| Arc::new(Leases::new(Arc::clone(&metrics)))),
            metrics,
            settings,
        })
    }

    /// A limiter with a store connection of its own, on the runtime that calls this.
    pub(super) fn limiter(&self) -> Limiter<Store> {
        let store = self.store();
        let on_failure = self.settings.store.on_failure;
        let failover = Failover::new(store, on_failure, Arc::clone(&self.metrics));
        let layers =
            Layers { denials: self.denials.clone(), leases: self.leases.clone(), failover };
        Limiter::new(Arc::clone(&self.shared), layers)
    }

    /// A service with a store connection of its own, on the runtime that calls this.
    pub(super) fn rls(&self) -> Rls<Store> {
        let limiter = self.limiter();
        let deadline = self.settings.store.deadline;
        Rls::new(limiter, Arc::clone(&self.responder), Arc::clone(&self.metrics), deadline)
    }

    fn store(&self) -> Store {
        let Some(connector) = self.connector.clone() else {
            return Store::Memory(Arc::clone(&self.memory));
        };
        let (settings, notices) = (&self.settings.redis, self.notices.clone());
        let store = RedisStore::connect_with(settings, connector, MAX_WAITING, notices);
        self.redis.lock().push(store.clone());
        Store::Redis(store)
    }

    /// The number of store connections, and of those that are up.
    pub(super) fn connections(&self) -> (usize, usize) {
        let redis = self.redis.lock();
        (redis.len(), redis.iter().filter(|store| store.is_connected()).count())
    }

    /// Checks that the sentinels, if they answer, know the primary by its name.
    pub(super) async fn check_redis(&self) -> Result<(), AppError> {
        match &self.connector {
            Some(connector) => Ok(connector.check_name().await?),
            None => Ok(()),
        }
    }

    /// Looks for faults of the server until it is dropped.
    pub(super) async fn inspect(&self) {
        if let Some(connector) = &self.connector {
            self.inspection.run(connector, &self.settings.redis.key_prefix).await;
        }
    }

    /// The bounds of a listener on the `index`-th runtime.
    pub(super) fn listener_bounds(&self, index: usize) -> ListenerBounds {
        self.settings.grpc.bounds(&self.settings.listeners, index)
    }

    /// The acceptor of `listener`, called `name`.
    pub(super) fn acceptor(&self, listener: TcpListener, name: &'static str) -> Acceptor {
        Acceptor::new(listener, name, self.listener_bounds(0), Arc::clone(&self.metrics))
    }

    /// Waits until every store has tried to connect, so that the first requests meet it. Redis may
    /// be away: then they are decided without it.
    pub(super) async fn wait_for_stores(&self) {
        while !self.redis.lock().iter().all(RedisStore::has_tried) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Brings gauges up to date.
    pub(super) fn refresh(&self) {
        let redis = self.redis.lock();
        self.metrics.store_up.set(redis.iter().all(RedisStore::is_connected).into());
        let unreadable: u64 = redis.iter().map(RedisStore::unreadable_states).sum();
        self.metrics.unreadable_states.inner().store(unreadable, Ordering::Relaxed);
        if let Some(connector) = &self.connector {
            let switches = self.metrics.redis_switches.inner();
            switches.store(connector.switches(), Ordering::Relaxed);
            self.metrics.set_redis_primary(connector.primary());
        }
        let counters = i64::try_from(self.memory.len()).unwrap_or(i64::MAX);
        self.metrics.memory_counters.set(counters);
        let progress = self.control.follower().progress();
        self.metrics.registry_up.set(progress.reached.into());
        let revision = i64::try_from(progress.revision).unwrap_or(i64::MAX);
        self.metrics.registry_revision.set(revision);
        let clients = self.shared.resolver.clients.directory().len();
        self.metrics.clients.set(i64::try_from(clients).unwrap_or(i64::MAX));
    }
}

/// The storage of operators' changes: Redis if it has the counters, otherwise a file.
fn registry(settings: &Settings, connector: Option<Connector>) -> AnyRegistry {
    let Some(connector) = connector else {
        let path = settings.general.data_dir.join(REGISTRY_FILE);
        return AnyRegistry::Embedded(EmbeddedRegistry::new(path, DEFAULT_LOG_CHANGES));
    };
    let registry = RedisRegistry::connect_with(&settings.redis, connector, DEFAULT_LOG_CHANGES);
    AnyRegistry::Redis(Box::new(registry))
}
