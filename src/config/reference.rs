//! Variables of envoyproxy/ratelimit. They are not read: a warning names those that are set and
//! what to write instead.
//!
//! Names of the reference: `src/settings/settings.go` of envoyproxy/ratelimit.

use std::collections::BTreeSet;

use super::layer::variable;
use super::sources::Sources;
use crate::settings::Reader;

/// Variables that one setting replaces.
struct Replaced {
    variables: &'static [&'static str],
    /// The setting, dotted.
    setting: &'static str,
    /// The form of its value.
    value: &'static str,
}

const REPLACED: &[Replaced] = &[
    Replaced {
        variables: &["RUNTIME_ROOT", "RUNTIME_SUBDIRECTORY", "RUNTIME_APPDIRECTORY"],
        setting: "policies.path",
        value: "DIRECTORY",
    },
    Replaced {
        variables: &["MERGE_DOMAIN_CONFIG"],
        setting: "policies.merge_domains",
        value: "true",
    },
    Replaced {
        variables: &["REDIS_URL", "REDIS_AUTH", "REDIS_SOCKET_TYPE"],
        setting: "redis.url",
        value: "redis://[USER:PASSWORD@]HOST:PORT",
    },
    Replaced { variables: &["REDIS_TLS"], setting: "redis.tls.enabled", value: "true" },
    Replaced { variables: &["REDIS_TLS_CACERT"], setting: "redis.tls.ca_file", value: "FILE" },
    Replaced {
        variables: &["REDIS_TLS_CLIENT_CERT"],
        setting: "redis.tls.cert_file",
        value: "FILE",
    },
    Replaced { variables: &["REDIS_TLS_CLIENT_KEY"], setting: "redis.tls.key_file", value: "FILE" },
    Replaced {
        variables: &["REDIS_TLS_SKIP_HOSTNAME_VERIFICATION"],
        setting: "redis.tls.skip_hostname",
        value: "true",
    },
    Replaced {
        variables: &["REDIS_TYPE"],
        setting: "redis.topology",
        value: "standalone, sentinel or cluster",
    },
    Replaced {
        variables: &["REDIS_SENTINEL_AUTH"],
        setting: "redis.sentinel.password",
        value: "PASSWORD",
    },
    Replaced { variables: &["REDIS_TIMEOUT"], setting: "redis.connect_timeout", value: "DURATION" },
    Replaced { variables: &["CACHE_KEY_PREFIX"], setting: "redis.key_prefix", value: "PREFIX" },
    Replaced { variables: &["GRPC_HOST", "GRPC_PORT"], setting: "grpc.listen", value: "IP:PORT" },
    Replaced { variables: &["HOST", "PORT"], setting: "http.listen", value: "IP:PORT" },
    Replaced {
        variables: &["GRPC_MAX_CONNECTION_AGE"],
        setting: "grpc.max_connection_age",
        value: "DURATION",
    },
    Replaced { variables: &["SHADOW_MODE"], setting: "mode", value: "shadow" },
    Replaced {
        variables: &["LIMIT_RESPONSE_HEADERS_ENABLED"],
        setting: "response.headers",
        value: "reference",
    },
    Replaced {
        variables: &["LIMIT_LIMIT_HEADER"],
        setting: "response.limit_header",
        value: "NAME",
    },
    Replaced {
        variables: &["LIMIT_REMAINING_HEADER"],
        setting: "response.remaining_header",
        value: "NAME",
    },
    Replaced {
        variables: &["LIMIT_RESET_HEADER"],
        setting: "response.reset_header",
        value: "NAME",
    },
    Replaced {
        variables: &["RESPONSE_DYNAMIC_METADATA"],
        setting: "response.dynamic_metadata",
        value: "true or false",
    },
    Replaced { variables: &["LOG_LEVEL"], setting: "log.level", value: "LEVEL" },
    Replaced { variables: &["LOG_FORMAT"], setting: "log.format", value: "text or json" },
];

/// Variables that no setting replaces.
const WITHOUT: &[&str] = &[
    "BACKEND_TYPE",
    "CONFIG_GRPC_XDS_SERVER_URL",
    "CONFIG_TYPE",
    "EXPIRATION_JITTER_MAX_SECONDS",
    "GRPC_SERVER_USE_TLS",
    "LOCAL_CACHE_SIZE_IN_BYTES",
    "MEMCACHE_HOST_PORT",
    "MEMCACHE_SRV",
    "NEAR_LIMIT_RATIO",
    "QUOTA_MODE",
    "REDIS_PERSECOND",
    "REDIS_PERSECOND_URL",
    "USE_DOG_STATSD",
    "USE_STATSD",
];

/// Names that many programs use. They count only along with another variable of
/// envoyproxy/ratelimit.
const COMMON: &[&str] = &["HOST", "LOG_FORMAT", "LOG_LEVEL", "PORT"];

/// The warning about variables that are set but not read. Variables whose setting is given are not
/// named.
pub(super) fn warning(sources: &Sources, reader: &Reader) -> Option<String> {
    let names = sources.environment.iter().filter(|(_, value)| !value.is_empty());
    let set: BTreeSet<&str> = names.filter_map(|(name, _)| name.to_str()).collect();
    let among = |names: &[&'static str]| -> Vec<&'static str> {
        names.iter().copied().filter(|name| set.contains(name)).collect()
    };
    let mut found = Vec::new();
    let mut parts = Vec::new();
    for Replaced { variables, setting, value } in REPLACED {
        let variables = among(variables);
        if !variables.is_empty() && reader.is_default(setting) {
            let name = variable(setting);
            parts.push(format!("{}: write {name}={value}", variables.join(", ")));
            found.extend(variables);
        }
    }
    let without = among(WITHOUT);
    if !without.is_empty() {
        parts.push(format!("{}: no equivalent", without.join(", ")));
        found.extend(without);
    }
    let certain = found.iter().any(|name| !COMMON.contains(name));
    certain.then(|| {
        format!("variables of envoyproxy/ratelimit are set but not read: {}", parts.join("; "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Key, Secret, load};

    const MIGRATING: &str = include_str!("../../docs/migrating.md");

    fn warnings(environment: &[(&str, &str)], set: &[&str]) -> Vec<String> {
        let environment = environment.iter().map(|(name, value)| (name.into(), value.into()));
        let set = set.iter().map(|pair| Secret::new(pair)).collect();
        let environment = environment.collect();
        load(&Sources { environment, set, ..Sources::default() }).unwrap().warnings
    }

    #[test]
    fn each_variable_is_named_with_the_setting_to_write() {
        let environment = [
            ("REDIS_SOCKET_TYPE", "tcp"),
            ("REDIS_URL", "redis:6379"),
            ("RUNTIME_ROOT", "/data"),
            ("USE_STATSD", "false"),
            ("LOG_LEVEL", "debug"),
            ("REDIS_TYPE", ""),
            ("OTHER", "x"),
        ];
        assert_eq!(
            warnings(&environment, &[]),
            ["variables of envoyproxy/ratelimit are set but not read: \
              RUNTIME_ROOT: write TOLLGATE__POLICIES__PATH=DIRECTORY; \
              REDIS_URL, REDIS_SOCKET_TYPE: write \
              TOLLGATE__REDIS__URL=redis://[USER:PASSWORD@]HOST:PORT; \
              LOG_LEVEL: write TOLLGATE__LOG__LEVEL=LEVEL; USE_STATSD: no equivalent"]
        );
    }

    #[test]
    fn variables_of_other_programs_and_those_replaced_are_not_named() {
        assert!(warnings(&[("LOG_LEVEL", "debug"), ("PORT", "80"), ("HOST", "x")], &[]).is_empty());
        let set = ["redis.url=redis://h"];
        assert!(warnings(&[("REDIS_URL", "h:1"), ("LOG_LEVEL", "debug")], &set).is_empty());
    }

    #[test]
    fn settings_exist_and_the_docs_name_every_variable() {
        for Replaced { variables, setting, .. } in REPLACED {
            assert!(Key::find(setting).is_some(), "{setting}");
            for name in *variables {
                assert!(MIGRATING.contains(&format!("`{name}`")), "{name} is not in the docs");
            }
        }
        for name in WITHOUT {
            assert!(MIGRATING.contains(&format!("`{name}`")), "{name} is not in the docs");
        }
    }
}
