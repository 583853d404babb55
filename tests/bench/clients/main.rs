//! A million clients: how long they take to load and to list, what they cost in memory, what decisions notice of it,
//! and how long a start with them takes.
//!
//! ```text
//! cargo bench --bench clients              a million, with Redis
//! cargo bench --bench clients -- 100000    so many
//! cargo bench --bench clients -- 1000000 1000   in batches of so many rather than 100
//! cargo bench --bench clients -- plans     on ten plans, of which one is changed
//! ```
//! Two tollgates share a Redis; one is told, the other follows. It prints figures and asserts what must hold on any
//! machine: nothing is lost, pages are complete. It is no criterion benchmark, as each step happens once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    reason = "a benchmark may panic, and nothing in it is public"
)]
#![allow(clippy::disallowed_types, reason = "shares its helpers with tests")]

mod pace;
mod plans;
#[path = "../../support/mod.rs"]
mod support;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tollgate::edge::admin::pb::client_service_client::ClientServiceClient;
use tollgate::edge::admin::pb::manage_clients_request::{Action, List, Upsert};
use tollgate::edge::admin::pb::{
    Client, Entry, Limit, ManageClientsRequest, ManageClientsResponse, Unit,
};
use tonic::transport::Channel;

use self::pace::Pace;
use self::support::redis::RedisServer;
use self::support::tollgate::{Options, Tollgate};

pub const DOMAIN: &str = "api";
const POLICY: &str = "domain: api\ndescriptors:\n  - {key: client_id, rate_limit: {unit: minute, requests_per_unit: 100}}\n";
/// The most clients on a page.
const MOST: usize = 1_000;

/// Clients in a batch: so few hold Redis up for less than a decision takes.
const BATCH: usize = 100;

/// The value that names the `i`-th client.
pub fn id(i: usize) -> String {
    format!("acme-{i:07}")
}

fn main() {
    let mut numbers = std::env::args().filter_map(|arg| arg.parse().ok());
    let (count, batch) = (numbers.next().unwrap_or(1_000_000), numbers.next().unwrap_or(BATCH));
    let by_plan = std::env::args().any(|arg| arg == "plans");
    let Some(redis) = RedisServer::start() else { return };
    let start = || Options::serving(POLICY).redis(redis.url()).unheard().start();
    let runtime = Runtime::new().unwrap();
    let (told, follower) = (start(), start());

    println!(
        "decisions before:      {}",
        Pace::during(told.at.grpc, count, Duration::from_secs(5))
    );
    let empty = (memory(&told), memory(&follower));
    let pace = Pace::begin(told.at.grpc, count);
    let begin = Instant::now();
    if by_plan {
        runtime.block_on(plans::make(&told));
    }
    let revision = runtime.block_on(load(&told, count, batch, by_plan));
    let took = begin.elapsed();
    println!("decisions meanwhile:   {}", pace.end());
    println!("{count} clients loaded in {took:.1?}, {batch} at a time");
    runtime.block_on(followed(&follower, revision));
    println!("followed {:.1?} after the last answer", begin.elapsed().saturating_sub(took));
    println!("bytes for each, told:  {:.0}", per_client(empty.0, memory(&told), count));
    println!("bytes for each, other: {:.0}", per_client(empty.1, memory(&follower), count));
    if by_plan {
        let took = runtime.block_on(plans::change(&told, &follower, count));
        println!("a plan changed: in force for its clients on both after {took:.1?}");
        return;
    }
    println!(
        "decisions after:       {}",
        Pace::during(told.at.grpc, count, Duration::from_secs(5))
    );

    let begin = Instant::now();
    let pages = runtime.block_on(list_while_written(&told, &follower, count));
    println!("{pages} pages listed in {:.1?} while clients change", begin.elapsed());

    let begin = Instant::now();
    let late = start();
    let ready = begin.elapsed();
    runtime.block_on(followed(&late, revision));
    println!("a start with them: ready after {ready:.1?}, complete after {:.1?}", begin.elapsed());
    println!("bytes for each there:  {:.0}", per_client(empty.0, memory(&late), count));
}

/// Kilobytes that are resident.
fn memory(tollgate: &Tollgate) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", tollgate.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn per_client(before: u64, after: u64, count: usize) -> f64 {
    after.saturating_sub(before) as f64 * 1024.0 / count as f64
}

type Service = ClientServiceClient<Channel>;

async fn service(tollgate: &Tollgate) -> Service {
    ClientServiceClient::new(Tollgate::channel(tollgate.at.admin).await)
        .max_decoding_message_size(64 << 20)
}

async fn manage(service: &mut Service, action: Action) -> ManageClientsResponse {
    let request = ManageClientsRequest { action: Some(action), validate_only: false };
    service.manage_clients(request).await.unwrap().into_inner()
}

fn client(i: usize, requests_per_unit: u32) -> Client {
    let requests_per_unit = Some(requests_per_unit);
    let limit = Limit { requests_per_unit, unit: Unit::Minute.into(), ..Limit::default() };
    Client {
        domain: DOMAIN.to_owned(),
        entries: vec![Entry { key: "client_id".to_owned(), value: id(i), hashed: false }],
        limits: vec![limit],
        ..Client::default()
    }
}

/// Loads them in batches, one after the other; the revision of the last.
async fn load(tollgate: &Tollgate, count: usize, batch: usize, by_plan: bool) -> u64 {
    let made = |i| if by_plan { plans::client(i) } else { client(i, 60) };
    let mut service = service(tollgate).await;
    let mut revision = 0;
    for begin in (0..count).step_by(batch) {
        let clients = (begin..count.min(begin + batch)).map(made).collect();
        revision = manage(&mut service, Action::Upsert(Upsert { clients })).await.revision();
    }
    revision
}

/// Waits until a tollgate shows `revision`.
async fn followed(tollgate: &Tollgate, revision: u64) {
    let mut service = service(tollgate).await;
    let first = List { page_size: 1, ..List::default() };
    while manage(&mut service, Action::List(first.clone())).await.revision() < revision {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Lists all clients page by page through one tollgate while the other one changes and adds some; how many pages.
async fn list_while_written(listing: &Tollgate, writing: &Tollgate, count: usize) -> usize {
    let mut writer = service(writing).await;
    let write = tokio::spawn(async move {
        for i in 0.. {
            let change = vec![client(fastrand::usize(..count), 70), client(count + i, 80)];
            manage(&mut writer, Action::Upsert(Upsert { clients: change })).await;
        }
    });
    let mut service = service(listing).await;
    let (mut seen, mut pages, mut page_token) = (HashSet::with_capacity(count), 0, String::new());
    loop {
        let list = List {
            domain: DOMAIN.to_owned(),
            page_size: MOST as u32,
            page_token,
            ..List::default()
        };
        let page = manage(&mut service, Action::List(list)).await;
        assert!(page.revision() > 0, "a page names its revision");
        pages += 1;
        for client in page.clients {
            assert!(seen.insert(client.entries[0].value.clone()), "listed twice: {client:?}");
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    write.abort();
    assert!((0..count).all(|i| seen.contains(&id(i))), "a client is on no page");
    pages
}
