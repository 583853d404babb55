//! Environments of deployments, and what each variable does.

use std::collections::BTreeSet;
use std::ffi::OsString;

use super::defaults::DEFAULTS;
use super::*;
use crate::config::{Compat, Key, Loaded, Secret, Settings, load};
use crate::limiter::mode::Mode;
use crate::policy::{AlgorithmName, OnStoreFailure};
use crate::redis::RedisSettings;

const MIGRATING: &str = include_str!("../../../docs/migrating.md");

fn sources(environment: &[(&str, &str)], set: &[&str]) -> Sources {
    let pair = |(name, value): &(&str, &str)| (OsString::from(name), OsString::from(value));
    Sources {
        environment: environment.iter().map(pair).collect(),
        set: set.iter().map(|pair| Secret::new(pair)).collect(),
        program: Compat::Ratelimit,
        ..Sources::default()
    }
}

fn loaded(environment: &[(&str, &str)], set: &[&str]) -> Loaded {
    load(&sources(environment, set)).unwrap_or_else(|faults| panic!("{faults}"))
}

fn settings(environment: &[(&str, &str)]) -> Settings {
    loaded(environment, &[]).settings
}

fn redis(environment: &[(&str, &str)]) -> RedisSettings {
    settings(environment).redis
}

fn faults(environment: &[(&str, &str)]) -> Vec<String> {
    let faults = load(&sources(environment, &[])).expect_err("faults");
    faults.0.iter().map(|fault| format!("{}: {}", fault.origin, fault.message)).collect()
}

fn warnings(environment: &[(&str, &str)]) -> Vec<String> {
    let warning = |remark: Remark| match remark {
        Remark::Warning(text) => Some(text),
        Remark::Info(_) | Remark::Detail(_) => None,
    };
    loaded(environment, &[]).remarks.into_iter().filter_map(warning).collect()
}

/// The samples of Istio.
const ISTIO: &[(&str, &str)] = &[
    ("LOG_LEVEL", "debug"),
    ("REDIS_SOCKET_TYPE", "tcp"),
    ("REDIS_URL", "redis:6379"),
    ("USE_STATSD", "false"),
    ("RUNTIME_ROOT", "/data"),
    ("RUNTIME_SUBDIRECTORY", "ratelimit"),
    ("RUNTIME_WATCH_ROOT", "false"),
    ("RUNTIME_IGNOREDOTFILES", "true"),
    ("HOST", "::"),
    ("GRPC_HOST", "::"),
    ("REDIS_PORT", "tcp://10.0.0.1:6379"),
    ("REDIS_SERVICE_HOST", "10.0.0.1"),
];

#[test]
fn environment_of_istio_is_taken_over_without_a_warning() {
    let settings = settings(ISTIO);
    assert_eq!(settings.log.level.as_str(), "debug");
    assert_eq!(settings.redis.url.unwrap().expose(), "redis://redis:6379");
    assert_eq!(settings.policies.path.unwrap().to_str(), Some("/data/ratelimit/config"));
    assert_eq!(settings.http.listen.to_string(), "[::]:8080");
    assert_eq!(settings.grpc.listen.to_string(), "[::]:8081");
    assert_eq!(warnings(ISTIO), [""; 0]);
}

#[test]
fn defaults_are_those_of_the_personality_and_own_settings_win() {
    let unset = settings(&[("REDIS_URL", "h:1")]);
    assert_eq!(unset.policies.default_algorithm, AlgorithmName::FixedWindow);
    assert_eq!(unset.store.on_failure, OnStoreFailure::Error);
    assert_eq!(unset.general.compat, Compat::Ratelimit);
    assert_eq!(unset.policies.path.unwrap().to_str(), Some("/srv/runtime_data/current/config"));
    let own = [
        "policies.default_algorithm=token_bucket",
        "grpc.listen=127.0.0.1:1",
        "redis.url=redis://own",
    ];
    let environment = [
        ("GRPC_PORT", "9"),
        ("REDIS_URL", "u:p@other:2"),
        ("REDIS_AUTH", "secret"),
        ("SHADOW_MODE", "1"),
    ];
    let settings = loaded(&environment, &own).settings;
    assert_eq!(settings.policies.default_algorithm, AlgorithmName::TokenBucket);
    assert_eq!(settings.grpc.listen.to_string(), "127.0.0.1:1");
    assert_eq!(settings.redis.url.unwrap().expose(), "redis://own");
    assert_eq!((settings.redis.password, settings.general.mode), (None, Mode::Shadow));
}

#[test]
fn personality_is_named_by_program_setting_or_flag() {
    let named = |sources: &Sources| load(sources).unwrap().settings.general.compat;
    assert_eq!(named(&Sources::default()), Compat::None);
    assert_eq!(named(&sources(&[], &[])), Compat::Ratelimit);
    assert_eq!(named(&sources(&[("TOLLGATE__COMPAT", "none")], &[])), Compat::None);
    let flag = Sources { compat: Some(Compat::Ratelimit), ..Sources::default() };
    assert_eq!(named(&flag), Compat::Ratelimit);
    let set = Sources { program: Compat::None, ..sources(&[], &["compat=ratelimit"]) };
    assert_eq!(named(&set), Compat::Ratelimit);
}

#[test]
fn without_the_personality_one_hint_names_what_is_not_read() {
    let plain = |environment: &[(&str, &str)]| {
        let sources = Sources { program: Compat::None, ..sources(environment, &[]) };
        load(&sources).unwrap().remarks
    };
    let [Remark::Warning(hint)] = &plain(ISTIO)[..] else { panic!() };
    assert!(hint.contains("RUNTIME_ROOT, REDIS_URL, REDIS_SOCKET_TYPE, USE_STATSD;"), "{hint}");
    assert!(hint.contains("--compat ratelimit"), "{hint}");
    assert_eq!(plain(&[("LOG_LEVEL", "debug"), ("PORT", "1"), ("HOST", "x")]), []);
}

#[test]
fn every_form_of_redis_is_taken_over() {
    use crate::redis::Topology;
    let url = |environment: &[(&str, &str)]| redis(environment).url.unwrap().expose().to_owned();
    assert_eq!(url(&[("REDIS_URL", "[::1]:6379")]), "redis://[::1]:6379");
    assert_eq!(url(&[("REDIS_URL", "/run/redis.sock")]), "redis+unix:///run/redis.sock");
    let parted = redis(&[("REDIS_URL", "redis://u:p@h:7/1?username=v&password=q&db=3")]);
    assert_eq!(parted.url.unwrap().expose(), "redis://h:7");
    assert_eq!((parted.username.as_deref(), parted.database), (Some("v"), Some(3)));
    assert_eq!(parted.password.unwrap().expose(), "q");
    let auth = redis(&[("REDIS_URL", "redis://u:p@h:7/1"), ("REDIS_AUTH", ":pa:ss")]);
    assert_eq!((auth.url.unwrap().expose(), auth.username), ("redis://h:7/1", None));
    assert_eq!(auth.password.unwrap().expose(), "pa:ss");
    let sentinel = redis(&[
        ("REDIS_TYPE", "sentinel"),
        ("REDIS_URL", "mymaster, a:1 ,b:2"),
        ("REDIS_AUTH", "user:pass"),
        ("REDIS_SENTINEL_AUTH", "other"),
    ]);
    assert_eq!((sentinel.topology, sentinel.nodes.len()), (Topology::Sentinel, 2));
    assert_eq!(sentinel.sentinel.master.as_deref(), Some("mymaster"));
    assert_eq!(sentinel.sentinel.password.unwrap().expose(), "other");
    assert_eq!(sentinel.username.as_deref(), Some("user"));
    let cluster =
        redis(&[("REDIS_TYPE", "CLUSTER"), ("REDIS_URL", "a:1,b:2"), ("CACHE_KEY_PREFIX", "app:")]);
    assert_eq!((cluster.topology, cluster.nodes.len()), (Topology::Cluster, 2));
    assert_eq!(cluster.key_prefix, "app:tollgate:");
}

/// Where Redis is silently one node of several, limits would be those of that node.
#[test]
fn what_would_change_limits_is_refused_with_all_reasons_and_no_secret() {
    let found = faults(&[
        ("BACKEND_TYPE", "memcache"),
        ("REDIS_URL", "a:1,b:2"),
        ("REDIS_AUTH", "hunter2"),
        ("REDIS_AWS_IAM_AUTH", "true"),
        ("GRPC_UDS", "/run/x.sock"),
        ("GRPC_SERVER_USE_TLS", "true"),
        ("QUOTA_MODE", "perhaps"),
        ("REDIS_TIMEOUT", "10"),
        ("LOG_LEVEL", "loud"),
        ("CONFIG_TYPE", "HTTP"),
    ]);
    let origins: BTreeSet<&str> = found.iter().filter_map(|f| f.split(':').next()).collect();
    let expected = [
        "BACKEND_TYPE",
        "CONFIG_TYPE",
        "GRPC_SERVER_TLS_CERT",
        "GRPC_SERVER_TLS_KEY",
        "GRPC_UDS",
        "LOG_LEVEL",
        "QUOTA_MODE",
        "REDIS_AWS_IAM_AUTH",
        "REDIS_TIMEOUT",
        "REDIS_URL",
    ];
    assert_eq!(origins.into_iter().collect::<Vec<_>>(), expected, "{found:#?}");
    assert!(!found.iter().any(|fault| fault.contains("hunter2")), "{found:#?}");
}

#[test]
fn remarks_say_what_became_of_each_variable_without_secrets() {
    let environment = [
        ("REDIS_URL", "redis://:hunter2@h:1"),
        ("REDIS_POOL_SIZE", "10"),
        ("REDIS_PERSECOND", "true"),
        ("STATSD_PORT", "tcp://10.0.0.1:8125"),
        ("STATSD_HOST", "statsd"),
        ("CACHE_KEY_PREFIX", "app:"),
    ];
    let remarks = loaded(&environment, &[]).remarks;
    assert!(!format!("{remarks:?}").contains("hunter2"), "{remarks:#?}");
    let has = |remark: &Remark| assert!(remarks.contains(remark), "{remark:?} in {remarks:#?}");
    has(&Remark::Info("REDIS_URL is the setting redis.url".to_owned()));
    has(&Remark::Info(
        "CACHE_KEY_PREFIX is the setting redis.key_prefix = app:tollgate:".to_owned(),
    ));
    has(&Remark::Detail("REDIS_POOL_SIZE needs nothing: each core has one connection".to_owned()));
    let links = "STATSD_PORT is the link of a Kubernetes Service, and not read as a port";
    has(&Remark::Warning(links.to_owned()));
    let second = "REDIS_PERSECOND has no effect: all limits are counted in the Redis of REDIS_URL";
    has(&Remark::Warning(second.to_owned()));
}

#[test]
fn traces_are_those_of_the_variables() {
    use crate::telemetry::traces::settings::{Protocol, TraceSettings};
    let traces = |more: &[(&str, &str)]| -> TraceSettings {
        settings(&[&[("REDIS_URL", "h:1"), ("TRACING_ENABLED", "true")], more].concat()).traces
    };
    let shown = |traces: &TraceSettings| {
        let endpoint = traces.endpoint.as_ref().map(ToString::to_string).unwrap_or_default();
        (traces.protocol, endpoint)
    };
    let off = settings(&[("REDIS_URL", "h:1"), ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:1")]);
    assert_eq!(off.traces, TraceSettings::default());
    let bare = traces(&[]);
    assert_eq!(shown(&bare), (Protocol::Http, "http://localhost:4318".to_owned()));
    assert_eq!((&*bare.service_name, bare.ratio.get()), ("RateLimit", 1.0));
    // Of Envoy Gateway.
    let gateway = traces(&[
        ("TRACING_SERVICE_NAME", "envoy-ratelimit"),
        ("TRACING_SERVICE_NAMESPACE", "eg"),
        ("TRACING_SERVICE_INSTANCE_ID", "pod-1"),
        ("TRACING_SAMPLING_RATE", "0.5"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel:4318"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "2000"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Basic%20hunter2,a=100%"),
    ]);
    assert_eq!(shown(&gateway), (Protocol::Http, "http://otel:4318/v1/traces".to_owned()));
    assert_eq!((&*gateway.service_name, gateway.ratio.get()), ("envoy-ratelimit", 0.5));
    assert_eq!(gateway.timeout.as_secs(), 2);
    let resource: Vec<_> = gateway.resource.unwrap().0.into_iter().collect();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let expected = [pair("service.instance.id", "pod-1"), pair("service.namespace", "eg")];
    assert_eq!(resource, expected);
    let headers = gateway.headers.unwrap().to_map();
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    assert_eq!((headers.len(), header("a")), (2, Some("100%")));
    assert_eq!(header("authorization"), Some("Basic hunter2"));
    let grpc = traces(&[
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "otel:4317"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca.pem"),
    ]);
    assert_eq!(shown(&grpc), (Protocol::Grpc, "https://otel:4317".to_owned()));
    assert!(grpc.tls.ca_file.is_some());
    let insecure = [("OTEL_EXPORTER_OTLP_INSECURE", "true")];
    let open =
        traces(&[&insecure[..], &[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "otel:1")]].concat());
    assert_eq!(shown(&open).1, "http://otel:1");
}

#[test]
fn counters_in_memory_are_a_warning() {
    let [warning] = &warnings(&[])[..] else { panic!() };
    assert!(warning.starts_with("REDIS_URL is not set: counters are in the memory"), "{warning}");
}

#[test]
fn settings_of_the_defaults_exist_and_the_docs_name_every_variable() {
    for (setting, _) in DEFAULTS {
        assert!(Key::find(setting).is_some(), "{setting}");
    }
    let rooms = [
        include_str!("listeners.rs"),
        include_str!("policies.rs"),
        include_str!("redis.rs"),
        include_str!("telemetry.rs"),
        include_str!("tracing.rs"),
        include_str!("inert.rs"),
    ];
    let quoted = rooms.iter().flat_map(|room| room.split('"').skip(1).step_by(2));
    let is_name = |text: &&str| {
        text.len() > 3
            && text.bytes().all(|b| b.is_ascii_uppercase() || b == b'_' || b.is_ascii_digit())
    };
    let values = ["FILE", "GRPC_XDS_SOTW", "SINGLE", "SENTINEL", "CLUSTER"];
    let names: BTreeSet<&str> =
        quoted.filter(is_name).filter(|name| !values.contains(name)).collect();
    assert!(names.len() > 90, "{names:?}");
    for name in names.into_iter().chain(["HOST", "PORT"]) {
        assert!(MIGRATING.contains(&format!("`{name}`")), "{name} is not in the docs");
    }
}
