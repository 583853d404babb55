//! Variables without a setting: accepted, because nothing is to be done, or warned of, because they
//! have no effect.

use super::adopt::Adopter;
use super::go;

/// Variables for which nothing is to be done, and why.
pub(super) const ACCEPTED: &[(&str, &str)] = &[
    ("RUNTIME_IGNOREDOTFILES", "needs nothing: names that begin with a dot are skipped"),
    ("RUNTIME_WATCH_ROOT", "needs nothing: changes are noticed either way"),
    ("EXPIRATION_JITTER_MAX_SECONDS", "needs nothing: counters expire with their windows"),
    ("LOCAL_CACHE_SIZE_IN_BYTES", "needs nothing: denials are remembered, see deny_cache.max_keys"),
    ("STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT", "needs nothing: a denied request charges nothing"),
    ("REDIS_POOL_SIZE", "needs nothing: each core has one connection"),
    ("REDIS_POOL_ON_EMPTY_BEHAVIOR", "needs nothing: there is no pool"),
    ("REDIS_POOL_ON_EMPTY_WAIT_DURATION", "needs nothing: there is no pool"),
    ("REDIS_PIPELINE_WINDOW", "needs nothing: requests that are there together travel together"),
    ("REDIS_PIPELINE_LIMIT", "needs nothing: requests that are there together travel together"),
    ("REDIS_CLUSTER_PIPELINE_PARALLELISM", "needs nothing: each node has its own connection"),
    ("REDIS_STARTUP_INITIAL_INTERVAL", "needs nothing: tollgate starts without Redis"),
    ("REDIS_STARTUP_MAX_INTERVAL", "needs nothing: tollgate starts without Redis"),
    ("REDIS_CLOSE_CONNECTION_ON_READONLY_ERROR", "needs nothing: it is always so"),
    ("REDIS_PERSECOND_URL", "needs nothing: all counters are in one Redis"),
];

/// Variables that have no effect, and what that means.
pub(super) const WITHOUT_EFFECT: &[(&str, &str)] = &[
    ("GRPC_MAX_CONCURRENT_STREAMS", "has no effect; see listeners.max_streams"),
    ("CONFIG_GRPC_XDS_SERVER_CONNECT_RETRY_INTERVAL", "has no effect; see xds.backoff"),
    ("LIMIT_ALL_DESCRIPTORS_HEADERS_ENABLED", "has no effect; see response.headers: draft"),
    ("REDIS_OP_TIMEOUT", "has no effect; see store.deadline"),
    ("REDIS_PERSECOND_OP_TIMEOUT", "has no effect; see store.deadline"),
    ("USE_DOG_STATSD_MOGRIFIERS", "has no effect: names of statistics are not rewritten"),
    ("MEMCACHE_HOST_PORT", "has no effect: tollgate has no memcached store"),
    ("MEMCACHE_SRV", "has no effect: tollgate has no memcached store"),
];

/// The same of variables that are true or false, when they are true.
pub(super) const FLAGS_WITHOUT_EFFECT: &[(&str, &str)] =
    &[("REDIS_PERSECOND", "has no effect: all limits are counted in the Redis of REDIS_URL")];

pub(super) fn adopt(adopter: &mut Adopter<'_>) {
    for (name, message) in ACCEPTED {
        adopter.accept(name, message);
    }
    for (name, message) in WITHOUT_EFFECT {
        if adopter.text(name).is_some() {
            adopter.warn(name, message);
        }
    }
    for (name, message) in FLAGS_WITHOUT_EFFECT {
        if adopter.parsed(name, go::FLAG, go::flag) == Some(true) {
            adopter.warn(name, message);
        }
    }
    let elapsed = adopter.duration("REDIS_STARTUP_MAX_ELAPSED_TIME");
    if elapsed.is_some_and(|elapsed| !elapsed.is_zero()) {
        let message = "has no effect: tollgate starts without Redis and keeps connecting";
        adopter.warn("REDIS_STARTUP_MAX_ELAPSED_TIME", message);
    }
}
