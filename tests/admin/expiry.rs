//! The end of a client's time, by the clock of a real Redis, on replicas whose own clocks are
//! wrong.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tollgate::control::registry::Registry;
use tollgate::control::registry::redis::RedisRegistry;
use tollgate::control::sweep::sweep;
use tollgate::domain::{Clock as _, ManualClock, Timestamp, WallClock};
use tollgate::edge::admin::pb::Client;
use tollgate::redis::RedisSettings;
use tonic::Code;

use crate::redis_server::RedisServer;
use crate::replica::{Replica, World, client, code, per_minute};

const GUEST: &[(&str, &str)] = &[("api_key", "guest")];
const YEARS: Duration = Duration::from_hours(5 * 365 * 24);
const SOON: Duration = Duration::from_secs(10);

/// Replicas on a machine whose clock stands at `clock`.
fn world(server: &RedisServer, clock: u64) -> World<RedisRegistry> {
    let settings =
        RedisSettings { key_prefix: "test:".into(), ..RedisSettings::new(server.url()).unwrap() };
    let registry = Arc::new(RedisRegistry::connect(&settings).unwrap());
    World::on(registry, Arc::new(ManualClock::at(Timestamp::from_micros(clock))))
}

fn wall() -> u64 {
    WallClock.now().as_micros()
}

/// A client with 8 requests per minute, where the rule has 3, until `end`.
fn guest(end: u64) -> Client {
    let (seconds, nanos) = ((end / 1_000_000).cast_signed(), (end % 1_000_000) as i32 * 1_000);
    let expires_at = Some(prost_types::Timestamp { seconds, nanos });
    Client { expires_at, ..client(GUEST, vec![per_minute(8)]) }
}

/// Waits until the replica lets so many requests pass, each time with counters that start anew.
async fn until_admitted(world: &World<RedisRegistry>, replica: &Replica<RedisRegistry>, n: usize) {
    let start = Instant::now();
    loop {
        world.advance(60);
        let admitted = replica.admitted(GUEST, 10).await;
        if admitted == n {
            return;
        }
        assert!(start.elapsed() < SOON, "{admitted} pass, not {n}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn replica_whose_clock_is_ahead_keeps_a_client_that_has_not_expired() {
    let Some(server) = RedisServer::start() else { return };
    let ahead = wall() + YEARS.as_micros() as u64;
    let world = world(&server, ahead);
    let replica = world.replica().await;
    replica.upsert(vec![guest(wall() + 3_600_000_000)]).await.unwrap();
    assert_eq!(replica.admitted(GUEST, 10).await, 8);
    assert_eq!(sweep(&replica.control).await, Ok(0));
    // The clock is set wrong while the replica runs, and the replica has not read that of Redis
    // since.
    world.clock.advance(YEARS);
    assert_eq!(sweep(&replica.control).await, Ok(0));
    until_admitted(&world, &replica, 8).await;
    let fresh = world.replica().await;
    until_admitted(&world, &fresh, 8).await;
    let ended = replica.upsert(vec![guest(wall() - 1_000_000)]).await;
    assert_eq!(code(&ended), Code::InvalidArgument, "by the clock of Redis");
}

#[tokio::test]
async fn replica_whose_clock_is_behind_deletes_a_client_that_has_expired() {
    let Some(server) = RedisServer::start() else { return };
    let world = world(&server, 1_000_000_000_000_000);
    let replica = world.replica().await;
    let ended = replica.upsert(vec![guest(wall() - 1_000_000)]).await;
    assert_eq!(code(&ended), Code::InvalidArgument, "by the clock of Redis");
    let end = wall() + 2_000_000;
    let stored = replica.upsert(vec![guest(end)]).await.unwrap();
    let updated = stored.clients[0].updated_at.unwrap().seconds;
    assert!(updated.abs_diff((end / 1_000_000).cast_signed()) < 10, "{updated}");
    assert_eq!(replica.admitted(GUEST, 10).await, 8);
    assert_eq!(sweep(&replica.control).await, Ok(0));
    let redis_clock = async || world.registry.now().await.unwrap().as_micros();
    while redis_clock().await < end {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    until_admitted(&world, &replica, 3).await;
    // Also before its own clock is corrected.
    world.clock.set(Timestamp::from_micros(1_000_000_000_000_000));
    assert_eq!(sweep(&replica.control).await, Ok(1));
    assert_eq!(world.registry.newest().await.unwrap().revision, 2);
}

#[tokio::test]
async fn sweep_of_what_redis_has_changed_since_deletes_nothing() {
    let Some(server) = RedisServer::start() else { return };
    let world = world(&server, wall());
    let (here, there) = (world.replica().await, world.replica().await);
    let end = wall() + 300_000;
    here.upsert(vec![guest(end)]).await.unwrap();
    there.follow().await;
    there.stop_following();
    // The write is lost, and its revision made again with a later end.
    let mut connection = server.connection();
    redis::cmd("FLUSHALL").exec(&mut connection).unwrap();
    let again = here.upsert(vec![guest(end + 3_600_000_000)]).await.unwrap();
    assert_eq!(again.revision(), 1);
    while wall() < end {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(sweep(&there.control).await, Ok(0));
    assert_eq!(here.admitted(GUEST, 10).await, 8);
}
