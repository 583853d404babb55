//! Variables of Redis.

use std::time::Duration;

use super::adopt::Adopter;

/// The longest time to connect: calls wait for the first connection.
const MAX_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The settings of where Redis is and how to log in. Of them one source gives all.
const PLACE: [&str; 5] =
    ["redis.url", "redis.url_file", "redis.topology", "redis.nodes", "redis.sentinel.master"];

pub(super) fn adopt(adopter: &mut Adopter<'_>, overridden: &impl Fn(&str) -> bool) {
    if PLACE.iter().any(|setting| overridden(setting)) {
        adopter.accept("REDIS_URL", "is not read: tollgate's own settings name a Redis");
    } else {
        place(adopter);
    }
    if let Some(prefix) = adopter.text("CACHE_KEY_PREFIX") {
        adopter.set("CACHE_KEY_PREFIX", "redis.key_prefix", format!("{prefix}tollgate:"));
    }
    if let Some(timeout) = adopter.duration("REDIS_TIMEOUT") {
        let timeout = humantime::format_duration(timeout.min(MAX_CONNECT_TIMEOUT)).to_string();
        adopter.set("REDIS_TIMEOUT", "redis.connect_timeout", timeout);
    }
    if adopter.flag("REDIS_AWS_IAM_AUTH") {
        let message = "tollgate does not log in by IAM; set REDIS_AUTH, or REDIS_AUTH_FILE with a \
                       password that something else renews";
        adopter.refuse("REDIS_AWS_IAM_AUTH", message);
    }
}

fn place(adopter: &mut Adopter<'_>) {
    let Some(url) = adopter.text("REDIS_URL") else {
        let message = "is not set: counters are in the memory of this process, and each replica \
                       admits every limit anew";
        return adopter.warn("REDIS_URL", message);
    };
    let kind = adopter.text("REDIS_TYPE").unwrap_or("SINGLE").to_ascii_uppercase();
    match kind.as_str() {
        "SINGLE" => single(adopter, url),
        "SENTINEL" => sentinel(adopter, url),
        "CLUSTER" => {
            adopter.set("REDIS_TYPE", "redis.topology", "cluster");
            adopter.set("REDIS_URL", "redis.nodes", trimmed(url));
        }
        _ => {
            let message = format!("found {kind:?}, expected SINGLE, SENTINEL or CLUSTER");
            adopter.refuse("REDIS_TYPE", message);
        }
    }
    login(adopter);
    tls(adopter);
}

/// An address, a URL, or the path of a Unix socket.
fn single(adopter: &mut Adopter<'_>, url: &str) {
    let url = url.trim();
    if url.contains(',') && !url.contains("://") {
        let message = "names several servers; set REDIS_TYPE=CLUSTER, or REDIS_TYPE=SENTINEL with \
                       the name of the primary first";
        return adopter.refuse("REDIS_URL", message);
    }
    if url.starts_with('/') {
        return adopter.set("REDIS_URL", "redis.url", format!("redis+unix://{url}"));
    }
    if !url.contains("://") {
        return adopter.set("REDIS_URL", "redis.url", format!("redis://{url}"));
    }
    let Some(parsed) = redis::parse_redis_url(url) else {
        let message = "is no URL of Redis; expected HOST:PORT, redis://HOST:PORT or /PATH";
        return adopter.refuse("REDIS_URL", message);
    };
    let mut bare = parsed.clone();
    bare.set_query(None);
    let part =
        |name: &str| parsed.query_pairs().find(|(key, _)| key == name).map(|(_, v)| v.into_owned());
    // Each part of the query goes before the same part of the rest.
    if let Some(user) = part("username") {
        adopter.set("REDIS_URL", "redis.username", user);
        _ = bare.set_username("");
    }
    if let Some(password) = part("password") {
        adopter.set("REDIS_URL", "redis.password", password);
        _ = bare.set_password(None);
    }
    if let Some(database) = part("db") {
        adopter.set("REDIS_URL", "redis.database", database);
        bare.set_path("");
    }
    // So does REDIS_AUTH.
    if adopter.text("REDIS_AUTH").is_some() {
        _ = bare.set_password(None);
        _ = bare.set_username("");
    }
    adopter.set("REDIS_URL", "redis.url", bare.as_str());
}

/// The name of the primary, then the sentinels.
fn sentinel(adopter: &mut Adopter<'_>, url: &str) {
    let Some((master, sentinels)) = url.split_once(',') else {
        let message = "expected MASTER,HOST:PORT[,HOST:PORT...] with REDIS_TYPE=SENTINEL";
        return adopter.refuse("REDIS_URL", message);
    };
    adopter.set("REDIS_TYPE", "redis.topology", "sentinel");
    adopter.set("REDIS_URL", "redis.sentinel.master", master.trim());
    adopter.set("REDIS_URL", "redis.nodes", trimmed(sentinels));
    if let Some(auth) = adopter.text("REDIS_SENTINEL_AUTH") {
        let names = ["redis.sentinel.username", "redis.sentinel.password"];
        credentials(adopter, "REDIS_SENTINEL_AUTH", auth, names);
    }
}

fn trimmed(list: &str) -> String {
    list.split(',').map(str::trim).collect::<Vec<_>>().join(",")
}

fn login(adopter: &mut Adopter<'_>) {
    if let Some(auth) = adopter.text("REDIS_AUTH") {
        credentials(adopter, "REDIS_AUTH", auth, ["redis.username", "redis.password"]);
    }
    adopter.copy("REDIS_AUTH_FILE", "redis.password_file");
}

/// A password, or a user and a password.
fn credentials(
    adopter: &mut Adopter<'_>,
    name: &'static str,
    auth: &str,
    [user_setting, password_setting]: [&str; 2],
) {
    let (user, password) = auth.split_once(':').unwrap_or(("", auth));
    if !user.is_empty() {
        adopter.set(name, user_setting, user);
    }
    adopter.set(name, password_setting, password);
}

fn tls(adopter: &mut Adopter<'_>) {
    if !adopter.flag("REDIS_TLS") {
        return;
    }
    adopter.set("REDIS_TLS", "redis.tls.enabled", "true");
    adopter.copy("REDIS_TLS_CACERT", "redis.tls.ca_file");
    adopter.copy("REDIS_TLS_CLIENT_CERT", "redis.tls.cert_file");
    adopter.copy("REDIS_TLS_CLIENT_KEY", "redis.tls.key_file");
    adopter.copy_flag("REDIS_TLS_SKIP_HOSTNAME_VERIFICATION", "redis.tls.skip_hostname");
}
