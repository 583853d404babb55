//! What many rules and many clients add to a decision, in instructions: exact where times are not.
//!
//! A child of this program makes a number of decisions in memory, from the bytes of the request's
//! message to those of the answer's, and callgrind counts its instructions. Dynamic metadata is
//! left out of the rows: what it costs depends on the request alone, and would make what is added
//! look small. Two numbers of decisions, and the difference is free of everything that is done but
//! once.

use std::fmt::Write as _;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use clap::Args;
use prost::Message as _;
use tokio::runtime::Builder;
use tokio::time::Instant;
use tollgate::domain::{SystemClock, Timestamp, Unit};
use tollgate::edge::grpc::response::Responder;
use tollgate::edge::grpc::rls::Rls;
use tollgate::edge::grpc::settings::ResponseSettings;
use tollgate::edge::pb::RateLimitResponse;
use tollgate::limiter::denied::DeniedLines;
use tollgate::limiter::events::{EventSettings, LimitEvents};
use tollgate::limiter::holds::{HoldSettings, Holds};
use tollgate::limiter::key::{KeyMaker, SensitiveHasher};
use tollgate::limiter::layers::Layers;
use tollgate::limiter::layers::failover::Failover;
use tollgate::limiter::mode::{KillSwitch, Mode, ModeLayer};
use tollgate::limiter::request::Bounds;
use tollgate::limiter::resolve::{Clients, Resolver};
use tollgate::limiter::snapshot::Policies;
use tollgate::limiter::top::TopCallers;
use tollgate::limiter::{Limiter, Shared};
use tollgate::limits::directory::Directory;
use tollgate::limits::{Client, ClientLimit, ClientName, Rate};
use tollgate::policy::{Defaults, OnStoreFailure, Options, PolicySet, Source, compile};
use tollgate::store::MemoryStore;
use tollgate::telemetry::metrics::{EventMetrics, Metrics};

use crate::support::tollgate::request;
use crate::table::{Line, Target, short};

/// Whoever asks is one of so many; all of them have asked before the count begins.
const CALLERS: usize = 20_000;
const CLIENTS: usize = 100_000;
const RULES: usize = 100;
/// Hits in an hour: enough for all that a caller asks, too few for its counter to end while others
/// are counted.
const LIMIT: u32 = 10;

/// The command line of the process whose instructions are counted.
#[derive(Args, Clone, Copy, Debug)]
pub struct DecideArgs {
    #[arg(long)]
    rules: usize,
    /// Clients with limits of their own
    #[arg(long)]
    clients: usize,
    /// How many of the callers are such clients
    #[arg(long)]
    asking: usize,
    #[arg(long)]
    decisions: usize,
    /// Answers have dynamic metadata
    #[arg(long)]
    metadata: bool,
}

/// What the rows are called.
pub const NAME: &str = "rules-and-clients";

/// The rows, if they are wanted.
pub fn lines(wanted: impl Fn(&str) -> bool) -> Vec<Line> {
    if !wanted(NAME) {
        return Vec::new();
    }
    let counted = |clients, rules, asking| {
        let args = DecideArgs { rules, clients, asking, decisions: 0, metadata: false };
        let counted = per_decision(args);
        let shown = counted.as_ref().map_or_else(Clone::clone, |count| format!("{count:.0}"));
        eprintln!("{NAME}: {rules} rules, {clients} clients, {asking} ask: {shown} instructions");
        counted
    };
    let few = counted(0, 1, 0);
    let line = |rules, asking, who| {
        let many = few.clone().and_then(|few| Ok((few, counted(CLIENTS, rules, asking)?)));
        let rules = if rules == 1 { "one rule".to_owned() } else { format!("{rules} rules") };
        let shown = |(few, many): &(f64, f64)| format!("{} against {}", short(*many), short(*few));
        Line {
            name: NAME.to_owned(),
            what: format!(
                "{rules} of 3 levels and {CLIENTS} clients, {who} / one rule, \
                 instructions per decision"
            ),
            absolute: many.as_ref().map(shown).unwrap_or_default(),
            figure: many.map(|(few, many)| many / few),
            target: Target::AtMost(1.1),
        }
    };
    vec![
        line(RULES, 0, "asked by others"),
        line(RULES, CALLERS, "asked by those clients"),
        // What the clients add by themselves.
        line(1, CALLERS, "asked by those clients"),
    ]
}

/// Instructions of one decision.
fn per_decision(args: DecideArgs) -> Result<f64, String> {
    let once = instructions(DecideArgs { decisions: CALLERS, ..args })?;
    let thrice = instructions(DecideArgs { decisions: 3 * CALLERS, ..args })?;
    Ok((thrice - once) / (2 * CALLERS) as f64)
}

/// All instructions of a run.
fn instructions(args: DecideArgs) -> Result<f64, String> {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    valgrind.arg(std::env::current_exe().unwrap()).arg("decide");
    for (flag, value) in [
        ("--rules", args.rules),
        ("--clients", args.clients),
        ("--asking", args.asking),
        ("--decisions", args.decisions),
    ] {
        valgrind.args([flag, &value.to_string()]);
    }
    let output = valgrind.output().map_err(|error| format!("not measured: valgrind: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let count = said.lines().find_map(|line| line.split_once("Collected : ")?.1.parse().ok());
    Ok(count.unwrap_or_else(|| panic!("no count of instructions in\n{said}")))
}

/// Makes the decisions.
pub fn decide(args: &DecideArgs) {
    let rls = service(args);
    // As many requests as any run needs, so that making them takes the same in each.
    let requests: Vec<Bytes> = (0..3 * CALLERS).map(|i| asked(i % CALLERS)).collect();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        // Told apart from a refusal by its length; all have the same but for the numbers in it.
        let first = rls.answer_message(&asked(CALLERS), Instant::now()).await.unwrap();
        let read = RateLimitResponse::decode(&first[5..]).unwrap();
        let limit = read.statuses[0].current_limit.as_ref();
        assert!(limit.is_some_and(|limit| limit.requests_per_unit == LIMIT), "not limited");
        for request in requests.into_iter().take(args.decisions) {
            let answer = rls.answer_message(&request, Instant::now()).await.unwrap();
            assert!(answer.len().abs_diff(first.len()) < 4, "not limited");
        }
    });
}

fn asked(caller: usize) -> Bytes {
    let client = format!("client-{caller:06}");
    let entries = [("service", "s73"), ("path", "/api/v1/orders"), ("client", &*client)];
    // As of a connection, whose buffer is shared.
    BytesMut::from(&*request("bench", &[&entries]).encode_to_vec()).split().freeze()
}

/// tollgate without sockets.
fn service(args: &DecideArgs) -> Rls<MemoryStore<SystemClock>> {
    let metrics = Arc::new(Metrics::new(1_000));
    let hasher = SensitiveHasher::new(b"");
    let shared = Arc::new(Shared {
        policies: Policies::new(policies(args.rules), Arc::clone(&metrics)),
        modes: KillSwitch::new(ModeLayer { global: Some(Mode::Enforce), ..ModeLayer::default() }),
        bounds: Bounds::default(),
        resolver: Resolver {
            keys: KeyMaker::new("tollgate:", hasher.clone()),
            defaults: Defaults::default(),
            clients: Clients::new(directory(args), Arc::new(SystemClock::start())),
        },
        metrics: Arc::clone(&metrics),
        events: LimitEvents::new(
            &EventSettings::default(),
            SystemClock::start(),
            EventMetrics::default(),
        ),
        top: TopCallers::new(1_024, SystemClock::start()),
        holds: Arc::new(Holds::new(&HoldSettings::default(), Arc::default())),
        denied: DeniedLines::new(10),
    });
    let store = MemoryStore::new(1_000_000, SystemClock::start());
    let failover = Failover::new(store, OnStoreFailure::Allow, Arc::clone(&metrics));
    let settings =
        ResponseSettings { dynamic_metadata: args.metadata, ..ResponseSettings::default() };
    let responder = Responder { settings, hasher, delay_header: None };
    let limiter = Limiter::new(shared, Layers::bare(failover));
    Rls::new(limiter, Arc::new(responder), metrics, Duration::from_secs(1).into())
}

/// The last of the rules, or the only one, is that of service s73.
fn policies(rules: usize) -> PolicySet {
    let mut text = String::from("domain: bench\ndescriptors:\n");
    for service in (0..rules - 1).map(|rule| rule + 100).chain([73]) {
        let _ = write!(
            text,
            "  - key: service\n    value: s{service}\n    descriptors:\n      \
             - key: path\n        value: /api/*\n        descriptors:\n          \
             - key: client\n            rate_limit:\n              \
             {{unit: hour, requests_per_unit: {LIMIT}, algorithm: token_bucket}}\n"
        );
    }
    compile(&[Source::new("bench", text)], &Options::default()).unwrap().set
}

/// The first clients are those that ask; the others nobody knows.
fn directory(args: &DecideArgs) -> Arc<Directory> {
    let directory = Directory::default();
    for number in 0..args.clients {
        let number = if number < args.asking { number } else { number + CALLERS };
        directory.put(client(number));
    }
    Arc::new(directory)
}

fn client(number: usize) -> Client {
    let rate = Rate {
        requests_per_unit: LIMIT,
        unit: Unit::Hour,
        unit_multiplier: 1,
        algorithm: None,
        burst: None,
        slots: None,
        always: None,
        settled: false,
        max_debt: None,
        on_store_failure: None,
    };
    let id = format!("client-{number:06}");
    let entries = [("service", "s73"), ("path", "/api/v1/orders"), ("client", &id)];
    Client {
        name: ClientName { domain: "bench".into(), entries: entries.into_iter().collect() },
        limits: [ClientLimit { name: None, rate: Some(rate) }].into_iter().collect(),
        plan: None,
        shadow: None,
        quota: None,
        metadata: None,
        labels: None,
        expires_at: None,
        updated_at: Timestamp::EPOCH,
        revision: 1,
    }
}
