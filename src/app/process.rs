//! The state that the parts of the process share, and the parts that each core builds from it.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic_health::server::HealthReporter;

use super::error::AppError;
use super::listen::ListenersTls;
use super::scales;
use crate::config::Settings;
use crate::control::Control;
use crate::control::follower::DEFAULT_POLL;
use crate::control::layered::Layered;
use crate::control::registry::DEFAULT_LOG_CHANGES;
use crate::control::registry::any::AnyRegistry;
use crate::control::registry::embedded::EmbeddedRegistry;
use crate::control::registry::redis::RedisRegistry;
use crate::control::writer::Writer;
use crate::domain::{CalendarClock, Commit, Group, Key, Settled, Settlement, SystemClock};
use crate::edge::admin::auth::Guard;
use crate::edge::grpc::callers::Callers;
use crate::edge::grpc::response::Responder;
use crate::edge::grpc::rls::Rls;
use crate::edge::health::{Readiness, SharedReadiness};
use crate::edge::listener::Bounds as ListenerBounds;
use crate::edge::listener::acceptor::Acceptor;
use crate::edge::listener::tls::Tls;
use crate::limiter::advice::RetrySpread;
use crate::limiter::denied::DeniedLines;
use crate::limiter::events::LimitEvents;
use crate::limiter::holds::Holds;
use crate::limiter::key::{KeyMaker, SensitiveHasher};
use crate::limiter::layers::Layers;
use crate::limiter::layers::deny_cache::DenyCache;
use crate::limiter::layers::failover::Failover;
use crate::limiter::layers::failover::replicas::{Place, Replicas};
use crate::limiter::layers::failover::shares::{Memories, Shares};
use crate::limiter::layers::leases::Leases;
use crate::limiter::layers::retry_slots::RetrySlots;
use crate::limiter::mode::KillSwitch;
use crate::limiter::resolve::{Clients, Resolver};
use crate::limiter::snapshot::Policies;
use crate::limiter::start::Start;
use crate::limiter::top::TopCallers;
use crate::limiter::{Limiter, Shared};
use crate::policy::{OnStoreFailure, PolicySet};
use crate::redis::Connector;
use crate::redis::inspect::Inspection;
use crate::store::recovery::Recovery;
use crate::store::redis::{BreakerState, Notices, RedisStore, StoreOptions};
use crate::store::{Allowance, Answer, Deadline, LimitStore, MemoryStore, StoreError, Suspects};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::traces::Traces;

/// The registry's file in the data directory.
const REGISTRY_FILE: &str = "registry.redb";

/// The state that the parts of the process share.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) settings: Settings,
    pub(super) shared: Arc<Shared>,
    /// Ends when operators' changes are in force. Decisions wait for it.
    pub(super) start: Arc<Start>,
    /// Brings policies, clients and modes to what is shared.
    pub(super) control: Arc<Control<AnyRegistry>>,
    /// Says which clients have expired.
    pub(super) calendar: Arc<CalendarClock>,
    pub(super) metrics: Arc<Metrics>,
    /// None: nothing is traced.
    pub(super) traces: Option<Arc<Traces>>,
    pub(super) health: HealthReporter,
    /// The readiness of this instance for traffic.
    pub(super) readiness: Arc<SharedReadiness>,
    /// The readiness that was last reported. Held while it is reported, so that reports have an
    /// order.
    pub(super) reported: tokio::sync::Mutex<Readiness>,
    /// Cancelled when connections are to end.
    pub(super) stop: CancellationToken,
    /// The TLS of the listeners.
    pub(super) tls: ListenersTls,
    /// The peers that may ask about a domain.
    pub(super) callers: Arc<Callers>,
    /// The guard of the admin listener.
    pub(super) guard: Guard,
    responder: Arc<Responder>,
    memory: Arc<MemoryStore<SystemClock>>,
    /// The deny cache, which spares Redis requests; none in memory mode.
    denials: Option<Arc<DenyCache>>,
    leases: Option<Arc<Leases>>,
    /// Spread the waits of denied callers; none: they are not spread.
    slots: Option<Arc<RetrySlots>>,
    /// The number of replicas that share the store.
    pub(super) replicas: Arc<Replicas>,
    /// Decide while the store is away.
    shares: Arc<Shares>,
    /// The stores that were made, for their health.
    redis: Mutex<Vec<RedisStore>>,
    /// The log lines that they have in common.
    notices: Notices,
    recovery: Arc<Recovery>,
    /// The way to Redis; none in memory mode.
    pub(super) connector: Option<Connector>,
    /// The findings at the server.
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
    async fn decide(&self, group: &Group, commit: Commit, deadline: Deadline) -> Answer {
        match self {
            Self::Memory(store) => store.decide(group, commit, deadline).await,
            Self::Redis(store) => store.decide(group, commit, deadline).await,
        }
    }

    async fn forget(&self, keys: &[Key], deadline: Deadline) -> Result<u32, StoreError> {
        match self {
            Self::Memory(store) => store.forget(keys, deadline).await,
            Self::Redis(store) => store.forget(keys, deadline).await,
        }
    }

    async fn settle(&self, settlement: Settlement) -> Result<Settled, StoreError> {
        match self {
            Self::Memory(store) => store.settle(settlement).await,
            Self::Redis(store) => store.settle(settlement).await,
        }
    }

    fn splits(&self, group: &Group) -> bool {
        match self {
            Self::Memory(store) => store.splits(group),
            Self::Redis(store) => store.splits(group),
        }
    }
}

impl Process {
    /// `policies`: none if there were none without faults at the start, or none came yet.
    ///
    /// The connections of the registry and of the exporter of spans live on the runtime that calls
    /// this.
    pub(super) fn new(
        mut settings: Settings,
        policies: Option<PolicySet>,
        layered: Layered,
    ) -> Result<Self, AppError> {
        let guard = Guard::new(&settings.admin);
        // The guard has their hashes, which do.
        settings.admin.forget_tokens();
        let metrics = metrics(&settings);
        let secret = settings.general.sensitive_key.as_ref().map_or("", |secret| secret.expose());
        let hasher = SensitiveHasher::new(secret.as_bytes());
        let calendar = Arc::new(CalendarClock::new(SystemClock::start()));
        let configured = policies.is_some() && layered.awaits().is_none();
        let policies = (policies.unwrap_or_default(), configured);
        let shared = shared(&settings, policies, &hasher, &calendar, &metrics);
        let shared = Arc::new(shared);
        show_top(&shared);
        let traces = traces(&settings, &metrics)?;
        let writer = Writer::new(Arc::clone(&shared), layered).with_traces(traces.clone());
        let writer = Arc::new(writer);
        // One for the process: it watches files and sentinels, and keeps the map of a cluster, on
        // this runtime.
        let shared_store = settings.redis.is_set();
        let connector = shared_store.then(|| settings.redis.connector()).transpose()?;
        let registry = Arc::new(registry(&settings, connector.clone()));
        let memories = memories(&settings, &metrics);
        let Memories { denials, leases } = memories.clone();
        let replicas = Arc::new(replicas(&settings));
        let recovery = Arc::<Recovery>::default();
        let shares = Shares::new(
            calendar.clone(),
            settings.failover.max_keys,
            Arc::clone(&replicas),
            memories,
            Arc::clone(&recovery),
            Arc::clone(&metrics),
        );
        Ok(Self {
            control: Arc::new(Control::new(registry, writer, DEFAULT_POLL)),
            calendar,
            shared,
            start: Arc::default(),
            health: HealthReporter::new(),
            readiness: Arc::default(),
            reported: tokio::sync::Mutex::default(),
            stop: CancellationToken::new(),
            tls: ListenersTls::new(&settings)?,
            callers: Arc::new(Callers::new(&settings.grpc.tls.domain_san)),
            guard,
            responder: Arc::new(responder(&settings, hasher)),
            memory: Arc::new(memory(&settings)),
            redis: Mutex::default(),
            notices: notices(settings.store.on_failure, Arc::clone(&replicas)),
            recovery,
            denials,
            leases,
            slots: slots(&settings, &replicas),
            replicas,
            shares: Arc::new(shares),
            connector,
            inspection: Inspection::default(),
            metrics,
            traces,
            settings,
        })
    }

    /// A limiter with a store connection of its own, on the runtime that calls this.
    pub(super) fn limiter(&self) -> Limiter<Store> {
        let store = self.store();
        let on_failure = self.settings.store.on_failure;
        let failover = Failover::new(store, on_failure, Arc::clone(&self.metrics))
            .with_shares(Arc::clone(&self.shares));
        let layers =
            Layers { denials: self.denials.clone(), leases: self.leases.clone(), failover };
        Limiter::new(Arc::clone(&self.shared), layers)
            .after(Arc::clone(&self.start))
            .spread_by(self.slots.clone())
    }

    /// A service with a store connection of its own, on the runtime that calls this.
    pub(super) fn rls(&self) -> Rls<Store> {
        let limiter = self.limiter();
        let (responder, metrics) = (Arc::clone(&self.responder), Arc::clone(&self.metrics));
        Rls::new(limiter, responder, metrics, self.allowance()).with_traces(self.traces.clone())
    }

    fn allowance(&self) -> Allowance {
        let Settings { redis, store, .. } = &self.settings;
        Allowance { time: store.deadline, same_machine: redis.is_on_this_machine() }
    }

    fn store(&self) -> Store {
        let Some(connector) = self.connector.clone() else {
            return Store::Memory(Arc::clone(&self.memory));
        };
        let suspects = self.denials.clone().map(|denials| -> Arc<dyn Suspects> { denials });
        let options = StoreOptions {
            allowance: self.allowance(),
            notices: self.notices.clone(),
            recovery: Arc::clone(&self.recovery),
            teller: Some(self.shares.clone()),
            suspects,
            calls: self.metrics.store.calls.clone(),
            ..StoreOptions::default()
        };
        let store = RedisStore::connect_with(&self.settings.redis, connector, options);
        self.redis.lock().push(store.clone());
        Store::Redis(store)
    }

    /// The number of store connections, and of those that are up.
    pub(super) fn connections(&self) -> (usize, usize) {
        let redis = self.redis.lock();
        (redis.len(), redis.iter().filter(|store| store.is_up()).count())
    }

    /// Checks what sentinels or nodes of a cluster say about the settings, if they answer.
    pub(super) async fn check_redis(&self) -> Result<(), AppError> {
        match &self.connector {
            Some(connector) => Ok(connector.check_topology().await?),
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

    /// The acceptor of `listener`, called `name`, over `tls` or in clear.
    pub(super) fn acceptor(
        &self,
        listener: TcpListener,
        name: &'static str,
        tls: Option<Arc<Tls>>,
    ) -> Acceptor {
        Acceptor::new(listener, name, self.listener_bounds(0), tls, Arc::clone(&self.metrics))
    }

    /// Waits until every store has tried to connect, so that the first requests meet it. Redis may
    /// be away: then they are decided without it.
    pub(super) async fn wait_for_stores(&self) {
        while !self.redis.lock().iter().all(RedisStore::has_tried) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// True while every connection to the store decides.
    pub(super) fn stores_up(&self) -> bool {
        self.redis.lock().iter().all(RedisStore::is_up)
    }

    /// Brings gauges up to date.
    pub(super) fn refresh(&self) {
        let redis = self.redis.lock();
        self.metrics.store.up.set(redis.iter().all(RedisStore::is_up).into());
        let outage = &self.metrics.outage;
        let breakers: Vec<_> = redis.iter().flat_map(RedisStore::breakers).collect();
        for state in BreakerState::ALL {
            let of_state = breakers.iter().filter(|breaker| **breaker == state).count();
            outage.show_breakers(state.name(), of_state);
        }
        let late: u64 = redis.iter().map(RedisStore::late_answers).sum();
        outage.late_answers.inner().store(late, Ordering::Relaxed);
        let extended: u64 = redis.iter().map(RedisStore::extended_calls).sum();
        outage.own_lateness.inner().store(extended, Ordering::Relaxed);
        outage.share_keys.set(gauge(self.shares.len()));
        outage.untold_keys.set(gauge(self.recovery.untold()));
        let unreadable: u64 = redis.iter().map(RedisStore::unreadable_states).sum();
        self.metrics.store.unreadable_states.inner().store(unreadable, Ordering::Relaxed);
        self.metrics.store.memory_counters.set(gauge(self.memory.len()));
        self.metrics.store.memory_bytes.set(gauge(self.memory.bytes()));
        let in_flight: u64 = redis.iter().map(RedisStore::calls_in_flight).sum();
        self.metrics.store.calls_in_flight.set(i64::try_from(in_flight).unwrap_or(i64::MAX));
        if let Some(connector) = &self.connector {
            let switches = self.metrics.store.redis_switches.inner();
            switches.store(connector.switches(), Ordering::Relaxed);
            self.metrics.store.show_primary(connector.primary());
        }
        let progress = self.control.follower().progress();
        self.metrics.registry.up.set(progress.reached.into());
        let revision = i64::try_from(progress.revision).unwrap_or(i64::MAX);
        self.metrics.registry.revision.set(revision);
        scales::show(&self.shared);
        let directory = self.shared.resolver.clients.directory();
        self.metrics.registry.clients.set(gauge(directory.len()));
        self.metrics.registry.plans.set(gauge(directory.plans().len()));
    }
}

/// The instruments, which know the kind of the store.
fn metrics(settings: &Settings) -> Arc<Metrics> {
    let metrics = Metrics::by_settings(&settings.metrics, settings.statsd.address.is_some());
    let store = if settings.redis.is_set() { "redis" } else { "memory" };
    metrics.decision_durations.name_store(store);
    Arc::new(metrics)
}

/// Shows the callers that are denied most in the metrics.
fn show_top(shared: &Arc<Shared>) {
    let seen = Arc::downgrade(shared);
    shared.metrics.show_top(move |most| {
        seen.upgrade().map(|shared| shared.top_labels(most)).unwrap_or_default()
    });
}

/// The state that every core shares.
fn shared(
    settings: &Settings,
    (policies, configured): (PolicySet, bool),
    hasher: &SensitiveHasher,
    calendar: &Arc<CalendarClock>,
    metrics: &Arc<Metrics>,
) -> Shared {
    Shared {
        policies: Policies::starting(policies, configured, Arc::clone(metrics)),
        modes: KillSwitch::new(settings.modes()),
        bounds: settings.bounds.clone(),
        resolver: Resolver {
            keys: KeyMaker::new(&settings.redis.key_prefix, hasher.clone()),
            defaults: settings.policies.defaults(),
            clients: Clients::new(Arc::default(), calendar.clone()),
        },
        metrics: Arc::clone(metrics),
        top: TopCallers::new(settings.admin.top_callers, SystemClock::start()),
        events: LimitEvents::new(&settings.events, SystemClock::start(), metrics.events.clone()),
        denied: DeniedLines::new(settings.log.denied_per_second),
        holds: Arc::new(Holds::new(&settings.holds, Arc::clone(&metrics.holds))),
    }
}

/// The store of a process without Redis.
fn memory(settings: &Settings) -> MemoryStore<SystemClock> {
    MemoryStore::new(settings.store.memory_max_keys, SystemClock::start())
        .with_max_settled(settings.holds.max_settled)
}

/// The parts of responses beside the statuses.
fn responder(settings: &Settings, hasher: SensitiveHasher) -> Responder {
    let delay_header = settings.limits.delay_header.clone();
    Responder { settings: settings.response.clone(), hasher, delay_header }
}

/// The traces that the settings ask for.
fn traces(settings: &Settings, metrics: &Metrics) -> Result<Option<Arc<Traces>>, AppError> {
    let store = if settings.redis.is_set() { "redis" } else { "memory" };
    let traces = Traces::start(&settings.traces, store, metrics.output.spans.clone())?;
    Ok(traces.map(Arc::new))
}

/// The memories of a store that replicas share.
fn memories(settings: &Settings, metrics: &Arc<Metrics>) -> Memories {
    if !settings.redis.is_set() {
        return Memories::default();
    }
    let max_keys = settings.deny_cache.max_keys;
    let denials = (max_keys > 0).then(|| DenyCache::new(max_keys, Arc::clone(metrics)));
    Memories {
        denials: denials.map(Arc::new),
        leases: Some(Arc::new(Leases::new(Arc::clone(metrics)))),
    }
}

/// The count of the replicas that share the store.
fn replicas(settings: &Settings) -> Replicas {
    if settings.redis.is_set() {
        Replicas::new(random_id(), settings.failover.replicas)
    } else {
        Replicas::alone()
    }
}

/// The slots that denied callers are told, if the settings ask for them.
fn slots(settings: &Settings, replicas: &Arc<Replicas>) -> Option<Arc<RetrySlots>> {
    match settings.limits.retry_spread {
        RetrySpread::Slots => Some(Arc::new(RetrySlots::new(Arc::clone(replicas)))),
        RetrySpread::Off => None,
    }
}

/// A name for this process among the replicas.
pub(super) fn random_id() -> u128 {
    let random = RandomState::new();
    u128::from(random.hash_one(0)) << 64 | u128::from(random.hash_one(1))
}

/// The log lines about Redis, which say how requests are decided without it.
fn notices(on_failure: OnStoreFailure, replicas: Arc<Replicas>) -> Notices {
    Notices::new(move || match on_failure {
        OnStoreFailure::Local => {
            let Place { replicas, source, .. } = replicas.now();
            format!("each of {replicas} replicas ({source}) decides by its share of a limit")
        }
        OnStoreFailure::Allow => "requests pass".to_owned(),
        OnStoreFailure::Deny => "requests are over their limits".to_owned(),
        OnStoreFailure::Error => "calls fail, and their callers decide".to_owned(),
    })
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
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
