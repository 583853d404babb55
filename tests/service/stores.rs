//! A tollgate on each store.

use crate::support::redis::RedisServer;
use crate::support::tollgate::{Options, Tollgate};

/// A tollgate with this policy in memory, and one with it in Redis.
pub fn each_store(policy: &str) -> Vec<(Option<RedisServer>, Tollgate)> {
    let mut stores = vec![(None, Options::serving(policy).start())];
    if let Some(redis) = RedisServer::start() {
        let tollgate = Options::serving(policy).redis(redis.url()).start();
        stores.push((Some(redis), tollgate));
    }
    stores
}
