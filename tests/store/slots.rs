//! The slots of keys, as a Redis with Cluster support counts them.

use tollgate::domain::Key;

use super::random::Random;
use super::redis_server::RedisServer;

#[test]
fn slots_are_those_of_redis() {
    let Some(server) = RedisServer::start_with(&["--cluster-enabled", "yes"]) else { return };
    let mut connection = server.connection();
    let mut random = Random::new(1);
    let keys: Vec<Vec<u8>> = (0..2_000)
        .map(|_| (0..random.up_to(12)).map(|_| random.pick(b"{}ab\x00\xff")).collect())
        .collect();
    let mut pipeline = redis::pipe();
    for key in &keys {
        pipeline.cmd("CLUSTER").arg("KEYSLOT").arg(key);
    }
    let expected: Vec<u16> = pipeline.query(&mut connection).unwrap();
    for (key, expected) in keys.iter().zip(expected) {
        assert_eq!(Key::new(key.as_slice()).slot(), expected, "{}", key.escape_ascii());
    }
}
