//! Remembered denials change nothing of what callers see: each answer of a limiter with a deny cache is that which its store
//! would give at the same moment, from the verdict to the dynamic metadata.

use std::cell::Cell;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestRunner};
use tokio::runtime::Builder;
use tokio::time::{Instant, advance};
use tollgate::domain::{Clock, ManualClock, Timestamp};
use tollgate::edge::grpc::convert::from_pb;
use tollgate::edge::grpc::response::Responder;
use tollgate::edge::grpc::settings::HeaderStyle;
use tollgate::edge::grpc::settings::ResponseSettings;
use tollgate::edge::pb;
use tollgate::limiter::denied::DeniedLines;
use tollgate::limiter::events::{EventSettings, LimitEvents};
use tollgate::limiter::holds::{HoldSettings, Holds};
use tollgate::limiter::key::{KeyMaker, SensitiveHasher};
use tollgate::limiter::layers::Layers;
use tollgate::limiter::layers::deny_cache::DenyCache;
use tollgate::limiter::layers::failover::Failover;
use tollgate::limiter::mode::{KillSwitch, ModeLayer};
use tollgate::limiter::request::Bounds;
use tollgate::limiter::resolve::{Clients, Resolver};
use tollgate::limiter::snapshot::Policies;
use tollgate::limiter::status::Decision;
use tollgate::limiter::top::TopCallers;
use tollgate::limiter::{Limiter, Shared};
use tollgate::limits::directory::Directory;
use tollgate::policy::{Defaults, OnStoreFailure, Options, Source, compile};
use tollgate::store::MemoryStore;
use tollgate::telemetry::metrics::{EventMetrics, Metrics};

const ALGORITHMS: [&str; 3] = ["token_bucket", "sliding_window", "fixed_window"];
const UNITS: [&str; 4] = ["second", "minute", "hour", "day"];
const NODES: usize = 4;

/// A node of the policy: the limits of the descriptors that have its key.
#[derive(Clone, Debug)]
struct Node {
    shadow: bool,
    quota: bool,
    limits: Vec<NodeLimit>,
}

#[derive(Clone, Debug)]
struct NodeLimit {
    requests: u32,
    algorithm: usize,
    unit: usize,
    always: bool,
    /// The node whose first limit it replaces.
    replaces: Option<usize>,
}

/// One request, so many microseconds after the one before.
#[derive(Clone, Debug)]
struct Step {
    wait: u64,
    /// Of each descriptor the node and the hits.
    descriptors: Vec<(usize, u64)>,
    refund: bool,
}

fn node() -> impl Strategy<Value = Node> {
    let requests = prop_oneof![1 => Just(0_u32), 6 => 1_u32..7];
    let replaces = prop::option::weighted(0.1, 0..NODES);
    let limit =
        (requests, 0..ALGORITHMS.len(), 0..UNITS.len(), prop::bool::weighted(0.03), replaces);
    let limit = limit.prop_map(|(requests, algorithm, unit, always, replaces)| NodeLimit {
        requests,
        algorithm,
        unit,
        always,
        replaces,
    });
    let limits = prop::collection::vec(limit, 1..4).prop_map(|mut limits| {
        // Two of the same algorithm and period are a fault.
        limits.sort_by_key(|limit| (limit.algorithm, limit.unit));
        limits.dedup_by_key(|limit| (limit.algorithm, limit.unit));
        limits
    });
    (prop::bool::weighted(0.15), prop::bool::weighted(0.2), limits)
        .prop_map(|(shadow, quota, limits)| Node { shadow, quota, limits })
}

fn step() -> impl Strategy<Value = Step> {
    let wait = prop_oneof![
        4 => 0_u64..1_000, 4 => 0_u64..300_000, 1 => 0_u64..3_000_000, 1 => 0_u64..10_000_000_000,
    ];
    let hits = prop_oneof![1 => Just(0_u64), 8 => Just(1), 4 => Just(2), 2 => 3_u64..9];
    let descriptors = prop::collection::vec((0..NODES, hits), 1..4);
    (wait, descriptors, prop::bool::weighted(0.02)).prop_map(|(wait, descriptors, refund)| Step {
        wait,
        descriptors,
        refund,
    })
}

fn yaml(nodes: &[Node]) -> String {
    let mut text = String::from("domain: d\ndescriptors:\n");
    for (i, Node { shadow, quota, limits }) in nodes.iter().enumerate() {
        let _ = writeln!(text, "  - key: n{i}\n    shadow_mode: {shadow}\n    quota_mode: {quota}");
        text += "    rate_limits:\n";
        for (j, limit) in limits.iter().enumerate() {
            let (algorithm, unit) = (ALGORITHMS[limit.algorithm], UNITS[limit.unit]);
            let _ = write!(
                text,
                "      - {{name: n{i}-{j}, algorithm: {algorithm}, unit: {unit}, \
                 requests_per_unit: {}",
                limit.requests
            );
            if limit.always {
                text += ", charge: always";
            }
            if let Some(other) = limit.replaces.filter(|other| *other != i) {
                let _ = write!(text, ", replaces: [{{name: n{other}-0}}]");
            }
            text += "}\n";
        }
    }
    text
}

fn asked(step: &Step) -> pb::RateLimitRequest {
    let descriptor = |(node, hits): &(usize, u64)| pb::RateLimitDescriptor {
        entries: vec![pb::rate_limit_descriptor::Entry {
            key: format!("n{node}").into(),
            value: "v".into(),
        }],
        hits_addend: Some(*hits),
        is_negative_hits: step.refund,
        ..pb::RateLimitDescriptor::default()
    };
    let descriptors = step.descriptors.iter().map(descriptor).collect();
    pb::RateLimitRequest { domain: "d".into(), descriptors, hits_addend: 0 }
}

/// The virtual time.
#[derive(Debug)]
pub struct Virtual(Instant);

impl Clock for Virtual {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(1_700_000_000_000_000 + self.0.elapsed().as_micros() as u64)
    }
}

/// A limiter in virtual time, over the memory store.
pub fn limiter(policy: String, metrics: &Arc<Metrics>) -> Limiter<MemoryStore<Virtual>> {
    let metrics = || Arc::clone(metrics);
    let set = compile(&[Source::new("test", policy)], &Options::default()).unwrap().set;
    let shared = Arc::new(Shared {
        policies: Policies::new(set, metrics()),
        modes: KillSwitch::new(ModeLayer::default()),
        bounds: Bounds::default(),
        resolver: Resolver {
            keys: KeyMaker::new("tollgate:", SensitiveHasher::new(b"")),
            defaults: Defaults::default(),
            clients: Clients::new(Arc::new(Directory::default()), Arc::new(ManualClock::default())),
        },
        metrics: metrics(),
        events: LimitEvents::new(
            &EventSettings::default(),
            ManualClock::default(),
            EventMetrics::default(),
        ),
        top: TopCallers::new(0, ManualClock::default()),
        holds: Arc::new(Holds::new(&HoldSettings::default(), Arc::default())),
        denied: DeniedLines::new(10),
    });
    let store = MemoryStore::new(10_000, Virtual(Instant::now()));
    let layers = Layers {
        denials: Some(Arc::new(DenyCache::new(1_000, metrics()))),
        leases: None,
        failover: Failover::new(store, OnStoreFailure::Deny, metrics()),
    };
    Limiter::new(shared, layers)
}

/// Asks as the steps say; how many of the answers were remembered.
async fn run(nodes: &[Node], steps: &[Step]) -> Result<u64, TestCaseError> {
    let metrics = Arc::new(Metrics::new(0));
    let limiter = limiter(yaml(nodes), &metrics);
    let settings = ResponseSettings { headers: HeaderStyle::Draft, ..ResponseSettings::default() };
    let responder = Responder { settings, hasher: SensitiveHasher::new(b""), delay_header: None };
    for step in steps {
        advance(Duration::from_micros(step.wait)).await;
        let asked = asked(step);
        let request = from_pb(&asked).unwrap();
        // The oracle: what the store would answer, which charges nothing.
        let truth = limiter.explain(&request, Instant::now().into()).await.decision;
        let said = limiter.decide(&request, Instant::now().into()).await;
        let same = responder.respond(&request, &said) == responder.respond(&request, &truth);
        let shown = |decision: &Decision| format!("{:#?}", decision.statuses);
        prop_assert!(same, "{step:?}: {} instead of {}", shown(&said), shown(&truth));
    }
    Ok(metrics.store.remembered_denials.get())
}

#[test]
fn answers_from_memory_are_those_of_the_store() {
    let remembered = Cell::new(0);
    let case =
        (prop::collection::vec(node(), NODES..=NODES), prop::collection::vec(step(), 1..100));
    let ran = TestRunner::new(ProptestConfig::with_cases(1_000)).run(&case, |(nodes, steps)| {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
        remembered.set(remembered.get() + runtime.unwrap().block_on(run(&nodes, &steps))?);
        Ok(())
    });
    ran.unwrap_or_else(|failure| panic!("{failure}"));
    assert!(remembered.get() > 1_000, "only {} remembered", remembered.get());
}
