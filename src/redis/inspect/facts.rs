//! Faults that INFO shows. No I/O.

use redis::Value;

use super::finding::Finding;

/// The oldest version whose scripts may read the time before they write.
const MIN_VERSION: u32 = 5;

/// The text of a reply to INFO.
pub(super) fn text(info: &Value) -> String {
    match info {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::VerbatimString { text, .. } | Value::SimpleString(text) => text.clone(),
        _ => String::new(),
    }
}

/// The findings in the text of INFO. What it does not tell is not judged.
pub(super) fn findings(info: &str) -> Vec<Finding> {
    let field = |name: &str| {
        info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    };
    let mut found = Vec::new();
    if let Some(version) = field("redis_version") {
        found.push(Finding { check: "version", fault: old(version) });
    }
    if let Some(role) = field("role") {
        let fault = (role != "master").then(|| {
            format!(
                "the Redis server is a replica ({role}) and takes no writes; connect to its \
                 primary, {}",
                field("master_host").map_or_else(
                    || "by redis.url".to_owned(),
                    |host| { format!("{host}:{}", field("master_port").unwrap_or_default()) }
                )
            )
        });
        found.push(Finding { check: "role", fault });
    }
    if let (Some(most), Some(policy)) = (field("maxmemory"), field("maxmemory_policy")) {
        let evicts = most != "0" && policy != "noeviction";
        let fault = evicts.then(|| {
            format!(
                "maxmemory-policy of Redis is {policy}: it may evict counters, and an evicted \
                 counter is a forgotten limit; set noeviction"
            )
        });
        found.push(Finding { check: "eviction", fault });
    }
    found
}

fn old(version: &str) -> Option<String> {
    let major: u32 = version.split('.').next()?.parse().ok()?;
    (major < MIN_VERSION).then(|| {
        format!(
            "Redis {version} is too old: tollgate needs {MIN_VERSION} or later, for scripts that \
             read the time before they write; upgrade it"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(info: &str) -> Vec<String> {
        findings(info).into_iter().filter_map(|finding| finding.fault).collect()
    }

    #[test]
    fn each_fault_is_found_and_a_sound_server_has_none() {
        let sound = "# Server\r\nredis_version:7.0.15\r\nmaxmemory:0\r\n\
                     maxmemory_policy:allkeys-lru\r\nrole:master\r\n";
        assert_eq!(faults(sound), Vec::<String>::new());
        assert_eq!(findings(sound).len(), 3);
        for (from, to, part) in [
            ("7.0.15", "4.0.14", "Redis 4.0.14 is too old"),
            ("role:master", "role:slave\r\nmaster_host:h\r\nmaster_port:7", "primary, h:7"),
            ("maxmemory:0", "maxmemory:1024", "is allkeys-lru"),
        ] {
            let found = faults(&sound.replace(from, to));
            assert!(found.len() == 1 && found[0].contains(part), "{found:?}");
        }
        let full = sound.replace("maxmemory:0", "maxmemory:1").replace("allkeys-lru", "noeviction");
        assert_eq!(faults(&full), Vec::<String>::new());
        assert_eq!(findings(""), []);
    }
}
