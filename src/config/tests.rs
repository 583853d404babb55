//! Loading as a whole: the sources, their order, what faults say, and what `print-config` prints.

use std::ffi::OsString;
use std::fs;
use std::time::Duration;

use tempfile::TempDir;

use super::layer::variable;
use super::*;
use crate::edge::grpc::settings::HeaderStyle;
use crate::limiter::mode::KillSwitch;
use crate::policy::{AlgorithmName, OnStoreFailure};
use crate::telemetry::logs::Format;

/// A directory with a settings file, and the sources that read it.
struct Setup {
    directory: TempDir,
    sources: Sources,
}

impl Setup {
    fn new(file: &str, environment: &[(&str, &str)], set: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tollgate.yaml");
        fs::write(&path, file).unwrap();
        let pair = |&(name, value): &(&str, &str)| (OsString::from(name), OsString::from(value));
        let sources = Sources {
            file: Some(path),
            environment: environment.iter().map(pair).collect(),
            set: set.iter().map(|pair| Secret::new(pair)).collect(),
            ..Sources::default()
        };
        Self { directory, sources }
    }

    fn load(&self) -> Loaded {
        load(&self.sources).unwrap_or_else(|faults| panic!("{faults}"))
    }

    /// The faults, with the directory left out.
    fn faults(&self) -> String {
        let faults = load(&self.sources).expect_err("faults").to_string();
        faults.replace(&format!("{}/", self.directory.path().display()), "")
    }

    fn secret(&self, name: &str, content: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }
}

fn faults_of_file(file: &str) -> String {
    Setup::new(file, &[], &[]).faults()
}

#[test]
fn nothing_given_is_the_documented_defaults() {
    let settings = load(&Sources::default()).unwrap().settings;
    assert_eq!(settings.changed(&Settings::default()), Vec::<String>::new());
    assert_eq!(settings.grpc.listen, "0.0.0.0:8081".parse().unwrap());
    assert_eq!(settings.admin.listen, "127.0.0.1:8082".parse().unwrap());
    assert_eq!(settings.http.listen, "0.0.0.0:8080".parse().unwrap());
    assert_eq!(settings.grpc.max_connection_age, Some(Duration::from_mins(30)));
    assert_eq!(settings.policies.path, None);
    assert_eq!(settings.policies.default_algorithm, AlgorithmName::SlidingWindow);
    assert_eq!(settings.redis.url, None);
    assert_eq!(settings.redis.key_prefix, "tollgate:");
    assert_eq!(settings.store.deadline, Duration::from_millis(10));
    assert_eq!(settings.store.on_failure, OnStoreFailure::Local);
    assert_eq!(settings.bounds.message_bytes, 65_536);
    assert_eq!(settings.response.headers, HeaderStyle::Off);
    assert_eq!(settings.general.data_dir, PathBuf::from("data"));
    assert_eq!(settings.modes().global, Some(Mode::Enforce));
    assert_eq!(settings.log.format, Format::Auto);
    assert!(settings.grpc.threads() >= 1);
    assert_eq!(settings.grpc.runtimes(), settings.grpc.threads());
}

#[test]
fn later_source_goes_before_an_earlier_one() {
    let file = "grpc: {cores: 1, runtime: shared, listen: ':0'}\npolicies: {path: file}\nlog: {level: warn}\n";
    let variables = [
        ("TOLLGATE__GRPC__CORES", "2"),
        ("TOLLGATE__LOG__LEVEL", ""),
        ("TOLLGATE__POLICIES__PATH", "variable"),
        ("TOLLGATE__MODE", "Shadow"),
        ("PATH", "/bin"),
        ("TOLLGATE_PORT_8081_TCP", "tcp://10.0.0.1:8081"),
        ("TOLLGATE_ADMIN_ADDRESS", "http://10.0.0.1:8082"),
        ("TOLLGATE_ADMIN_TOKEN", "of tollgate admin"),
        ("TOLLGATE__ADMIN__TOKEN", "of-the-server"),
    ];
    let mut setup =
        Setup::new(file, &variables, &["grpc.cores=3", "grpc.cores=4", "policies.path=set"]);
    setup.sources.policies = Some("flag".to_owned());
    setup.sources.redis_url = Some(Secret::new("redis://cache"));
    let settings = setup.load().settings;
    assert_eq!((settings.grpc.threads(), settings.grpc.runtimes()), (4, 1));
    assert_eq!(settings.grpc.listen.to_string(), "0.0.0.0:0");
    assert_eq!(settings.policies.path, Some(PathBuf::from("flag")));
    assert_eq!(settings.redis.url.unwrap().expose(), "redis://cache");
    assert_eq!(settings.log.level.as_str(), "warn", "an empty variable counts as unset");
    assert_eq!(settings.general.mode, Mode::Shadow);
}

#[test]
fn every_setting_but_mappings_can_be_set_by_its_variable() {
    for (section, key) in Key::all() {
        let dotted = key.dotted(section);
        let source = Sources {
            environment: vec![(variable(&dotted).into(), "\u{1}".into())],
            ..Sources::default()
        };
        // No type but text takes this value, so that a fault shows that the variable was read.
        match load(&source) {
            Err(faults) => assert_eq!(
                (&*faults.0[0].origin, &*faults.0[0].key),
                (&*variable(&dotted), &*dotted)
            ),
            Ok(loaded) => {
                assert!(loaded.to_yaml().contains(&format!("# {}", variable(&dotted))), "{dotted}");
            }
        }
    }
}

#[test]
fn names_that_others_build_on_stay() {
    for name in [
        "GRPC__LISTEN",
        "ADMIN__LISTEN",
        "HTTP__LISTEN",
        "POLICIES__PATH",
        "POLICIES__DEFAULT_ALGORITHM",
        "REDIS__URL",
        "REDIS__KEY_PREFIX",
        "DATA_DIR",
        "LOG__LEVEL",
        "LOG__FORMAT",
        "MODE",
    ] {
        let name = format!("TOLLGATE__{name}");
        assert!(Key::all().any(|(section, key)| variable(&key.dotted(section)) == name), "{name}");
    }
}

#[test]
fn addresses_are_read_kindly() {
    for (text, address) in [
        ("localhost:9000", "127.0.0.1:9000"),
        (":9000", "0.0.0.0:9000"),
        ("[::]:0", "[::]:0"),
        ("10.0.0.7:65535", "10.0.0.7:65535"),
    ] {
        let settings = Setup::new("", &[("TOLLGATE__GRPC__LISTEN", text)], &[]).load().settings;
        assert_eq!(settings.grpc.listen.to_string(), address);
    }
}

#[test]
fn ports_of_zero_never_collide() {
    let set = ["grpc.listen=127.0.0.1:0", "admin.listen=127.0.0.1:0", "http.listen=127.0.0.1:0"];
    assert_eq!(Setup::new("", &[], &set).load().settings.http.listen.port(), 0);
}

#[test]
fn modes_of_domains_go_before_the_mode_of_all() {
    let file = "mode: off\nmodes:\n  edge.api: shadow\n  \"a b[0]\": ENFORCE\n";
    let settings = Setup::new(file, &[], &[]).load().settings;
    let switch = KillSwitch::new(settings.modes());
    let modes = ["edge.api", "a b[0]", "other"].map(|domain| switch.of(domain.as_bytes()));
    assert_eq!(modes, [Mode::Shadow, Mode::Enforce, Mode::Off]);
}

#[test]
fn token_from_a_file_opens_the_admin_listener_beyond_loopback() {
    let mut setup = Setup::new("admin: {listen: ':8082'}", &[], &[]);
    let path = setup.secret("token", "hunter2\n");
    setup.sources.set.push(Secret::new(&format!("admin.token_file={}", path.display())));
    let loaded = setup.load();
    assert_eq!(loaded.settings.admin.token.as_ref().unwrap().expose(), "hunter2");
    assert!(!loaded.to_yaml().contains("hunter2"));
}

#[test]
fn null_and_zero_unset_what_is_optional() {
    let file = "policies: {path: ~}\nredis:\nmodes:\ngrpc: {max_connection_age: 0s}\n";
    let settings = Setup::new(file, &[], &[]).load().settings;
    assert_eq!((settings.policies.path, settings.grpc.max_connection_age), (None, None));
    let set = ["policies.path="];
    assert_eq!(Setup::new("policies: {path: a}", &[], &set).load().settings.policies.path, None);
}

/// A settings file, and what its faults must say.
const BAD_FILES: &[(&str, &[&str])] = &[
    (
        "grpc: {listen: 8081}",
        &["tollgate.yaml:1:16: grpc.listen: found \"8081\"", "write 0.0.0.0:8081"],
    ),
    (
        "metrics: {names: all, near_limit_ratio: 1.5, path: metrics}",
        &[
            "metrics.names: found \"all\", expected tollgate, reference or both",
            "metrics.near_limit_ratio: found \"1.5\", expected a number from 0 to 1",
            "metrics.path: found \"metrics\", expected a path such as /metrics",
        ],
    ),
    (
        "statsd: {address: localhost, interval: 0s, prefix: 'a:b', tags: [env]}",
        &[
            "statsd.address: found \"localhost\", expected a host and port",
            "statsd.interval: found 0s, expected at least 10ms",
            "statsd.tags: found \"env\", expected a list such as [env=prod, zone=b]",
            "statsd.prefix: found \"a:b\", expected printable characters",
        ],
    ),
    ("http: {listen: ':8080'}\ndebug: {listen: ':8080'}", &["is taken by http.listen"]),
    ("grpc: {listen: 10.0.0.7}", &["add a port: 10.0.0.7:8081"]),
    ("grpc: {listen: 'example.com:80'}", &["expected an address and port"]),
    ("grpc: {listen: 'localhost:99999'}", &["expected an address and port"]),
    ("grpc: {listen: [a]}", &["1:16: grpc.listen: expected an address"]),
    ("grpc: {listen: {a: b}}", &["1:16: grpc.listen: expected an address"]),
    ("grpc: {listen: ~}", &["grpc.listen: found null, expected an address"]),
    ("grpc: {lisen: ':1'}", &["1:15: grpc.lisen: unknown setting, did you mean grpc.listen?"]),
    ("grpc: 5", &["1:7: grpc: expected a section with the keys listen, cores"]),
    ("listen: ':1'", &["1:9: listen: unknown setting, did you mean grpc.listen?"]),
    ("nonsense: {a: 1}", &["1:11: nonsense: unknown setting", "print-config"]),
    ("grpc: {cores: -1}", &["grpc.cores: found \"-1\", expected a whole number"]),
    ("grpc: {cores: 2000}", &["grpc.cores: found 2000, expected at most 1024"]),
    ("store: {deadline: 10}", &["store.deadline: found \"10\"", "add a unit: 10ms or 10s"]),
    ("store: {deadline: 0s}", &["store.deadline: found 0s"]),
    ("store: {deadline: 2years}", &["at most 365 days"]),
    (
        "store: {on_failure: sometimes}",
        &["found \"sometimes\", expected local, allow, deny or error"],
    ),
    ("store: {memory_max_keys: 0}", &["store.memory_max_keys: found 0, expected at least 1"]),
    (
        "bounds: {descriptors: many}",
        &["bounds.descriptors: found \"many\", expected a whole number"],
    ),
    ("mode: on", &["1:7: mode: found \"on\", expected enforce, shadow or off"]),
    ("mode: {a: b}", &["1:7: mode: expected enforce, shadow or off"]),
    ("modes: {edge: loud}", &["1:15: modes.edge: found \"loud\", expected enforce, shadow or off"]),
    ("modes: {edge: {a: b}}", &["modes.edge: found", "expected enforce, shadow or off"]),
    ("\"modes.edge\": {a: b}", &["1:15: modes.edge: expected a mapping from domain"]),
    ("modes: shadow", &["1:8: modes: expected a mapping from domain"]),
    ("modes: [a]", &["1:8: modes: expected a mapping from domain"]),
    ("policies: {merge_domains: 1}", &["found \"1\", expected true or false"]),
    (
        "policies: {default_algorithm: leaky}",
        &["expected sliding_window, token_bucket or fixed_window"],
    ),
    (
        "redis: {url: 'http://x:hunter2@cache'}",
        &["1:14: redis.url: expected a URL such as redis://"],
    ),
    ("redis: {key_prefix: 'a{b'}", &["redis.key_prefix: found \"a{b\"", "without braces"]),
    ("redis: {frame_limits: 1001}", &["redis.frame_limits: found 1001, expected at most 1000"]),
    (
        "grpc: {runtime: per-core}",
        &["grpc.runtime: found \"per-core\", expected per_core or shared"],
    ),
    ("redis: {frames_in_flight: 0}", &["redis.frames_in_flight: found 0, expected at least 1"]),
    (
        "redis: {topology: ring}",
        &["redis.topology: found \"ring\", expected standalone, sentinel or cluster"],
    ),
    ("redis: {topology: cluster}", &["redis.nodes: is needed with redis.topology: cluster"]),
    ("redis: {nodes: ['a:1']}", &["redis.nodes: is for sentinels and clusters; set"]),
    (
        "redis: {topology: cluster, nodes: ['redis://a:1']}",
        &["redis.nodes: found \"redis://a:1\"", "write host:port"],
    ),
    (
        "redis: {topology: cluster, url: 'redis://a/3'}",
        &["redis.url: names database 3, and a Redis Cluster has only database 0"],
    ),
    ("redis: {topology: cluster, url: 'unix:///run/redis.sock'}", &["redis.url: is a Unix socket"]),
    ("redis: {url_file: /nowhere/x}", &["redis.url_file: /nowhere/x cannot be read"]),
    ("response: {limit_header: 'a b'}", &["expected the name of an HTTP header"]),
    ("response: {reset_header: RateLimit-Limit}", &["is the name of response.limit_header too"]),
    ("response: {headers: on}", &["expected off, reference or draft"]),
    ("log: {level: infoo}", &["log.level: found \"infoo\"", "\"infoo\" is no level"]),
    ("log: {format: xml}", &["expected auto, text or json"]),
    (
        "admin: {listen: ':8082'}",
        &[
            "found 0.0.0.0:8082",
            "serves loopback only",
            "set admin.token, admin.token_file or admin.tls.client_ca_file, or write 127.0.0.1:8082",
        ],
    ),
    (
        "admin: {listen: '127.0.0.1:8081', token: hunter2}",
        &["admin.listen: 127.0.0.1:8081 is taken by grpc.listen"],
    ),
    ("admin: {token: 'hunter2 x'}", &["1:16: admin.token: expected printable ASCII"]),
    ("admin: {token_file: /nowhere/x}", &["admin.token_file: /nowhere/x cannot be read"]),
    ("admin: {token: hunter2, token_file: /x}", &["admin.token is set too; set one of them"]),
    ("admin: {tokens: {ci: hunter2}, tokens_file: /x}", &["admin.tokens is set too; set one of"]),
    ("admin: {tokens_file: /nowhere/x}", &["admin.tokens_file: /nowhere/x cannot be read"]),
    ("admin: {tokens: {ci: 'hunter2 x'}}", &["admin.tokens: ci: expected printable ASCII"]),
    (
        "admin: {tokens: {'a b': hunter2}}",
        &["admin.tokens: found the name \"a b\", expected 1 to 63"],
    ),
    ("admin: {tokens: {ci: '***'}}", &["admin.tokens.ci: expected text that is not empty"]),
    ("admin: {tokens: {a: hunter2, b: hunter2}}", &["admin.tokens: b has the token of a"]),
    (
        "admin: {token: hunter2, tokens: {operator: x}}",
        &["admin.tokens: operator is the name of admin.token"],
    ),
    (
        "http: {listen: '127.0.0.1:8081'}",
        &["http.listen: 127.0.0.1:8081 is taken by grpc.listen (0.0.0.0:8081)"],
    ),
    ("grpc.cores: 2", &["1:13: grpc.cores: write section and key apart: grpc: {cores: ...}"]),
    ("a: b: c", &["tollgate.yaml:1:5: not valid YAML: mapping values are not allowed"]),
    ("mode: &a off\nmodes: *b", &["tollgate.yaml:2:8: not valid YAML", "put quotes around"]),
    (
        "mode: off\nmode: on\nsecret: hunter2",
        &[
            "tollgate.yaml:2:1: duplicate key \"mode\"; first written in line 1",
            "tollgate.yaml:3:9: secret: unknown setting",
        ],
    ),
    ("mode: off\n---\nmode: on", &["tollgate.yaml:2:1: a second document is not read"]),
    ("mode: !secret x", &["tollgate.yaml:1:15: unknown tag \"!secret\""]),
    ("- grpc", &["tollgate.yaml: expected a mapping of settings"]),
    ("text", &["tollgate.yaml: expected a mapping of settings"]),
];

#[test]
fn bad_file_is_refused_with_place_key_and_what_is_expected() {
    for (file, parts) in BAD_FILES {
        let faults = faults_of_file(file);
        for part in *parts {
            assert!(faults.contains(part), "{file:?} misses {part:?} in\n{faults}");
        }
        assert!(!faults.contains("hunter2"), "{faults}");
    }
}

#[test]
fn values_mean_what_is_written() {
    let file = "redis: {key_prefix: 1_0}\ndata_dir: 010\nstore: {memory_max_keys: \"5\"}\n\
                policies: {path: 1.50, merge_domains: TRUE}\nmode: OFF\n";
    let settings = Setup::new(file, &[], &[]).load().settings;
    assert_eq!(settings.redis.key_prefix, "1_0");
    assert_eq!(settings.general.data_dir, PathBuf::from("010"));
    assert_eq!(settings.store.memory_max_keys, 5);
    assert_eq!(settings.policies.path, Some(PathBuf::from("1.50")));
    assert!(settings.policies.merge_domains);
    assert_eq!(settings.general.mode, Mode::Off);
}

#[test]
fn file_without_content_is_no_settings() {
    for text in ["", "# only a comment\n", "---\n", "~"] {
        let settings = Setup::new(text, &[], &[]).load().settings;
        assert_eq!(settings.redis.key_prefix, "tollgate:", "{text:?}");
    }
}

#[test]
fn all_faults_of_all_sources_are_told_at_once() {
    let variables = [
        ("TOLLGATE__GRPC__LISTN", ":1"),
        ("TOLLGATE_REDIS_URL", "redis://:hunter2@h"),
        ("TOLLGATE__STORE__DEADLINE", "soon"),
        ("TOLLGATE__MODES__EDGE", "shadow"),
        ("TOLLGATE__REDIS__URL", "hunter2"),
        ("TOLLGATE__ADMIN__LISTEN", ":80"),
    ];
    let set = ["cores", "grpc.core=hunter2", "modes.edge=off", "log.format=xml"];
    let faults = Setup::new("mode: loud\nhttp: {port: 80}\n", &variables, &set).faults();
    for part in [
        "12 faults in the settings\n",
        "  TOLLGATE__ADMIN__LISTEN: admin.listen: found 0.0.0.0:80, but without a token the admin listener serves",
        "  tollgate.yaml:1:7: mode: found \"loud\"",
        "  tollgate.yaml:2:14: http.port: unknown setting; http has the keys listen",
        "  TOLLGATE__GRPC__LISTN: grpc.listn: unknown setting, did you mean grpc.listen?",
        "  TOLLGATE_REDIS_URL: is not read; did you mean TOLLGATE__REDIS__URL?",
        "  TOLLGATE__STORE__DEADLINE: store.deadline: found \"soon\", expected a duration",
        "  TOLLGATE__MODES__EDGE: modes.edge: expected a mapping from domain to",
        "  TOLLGATE__REDIS__URL: redis.url: expected a URL such as",
        "  --set: expected KEY=VALUE",
        "  --set: grpc.core: unknown setting, did you mean grpc.cores?",
        "  --set: modes.edge: expected a mapping",
        "  --set: log.format: found \"xml\", expected auto, text or json",
    ] {
        assert!(faults.contains(part), "no {part:?} in\n{faults}");
    }
    assert!(!faults.contains("hunter2"), "{faults}");
}

#[test]
fn file_that_cannot_be_read_is_a_fault() {
    let sources = Sources { file: Some("/nowhere/t.yaml".into()), ..Sources::default() };
    let faults = load(&sources).unwrap_err().to_string();
    assert!(faults.contains("/nowhere/t.yaml: cannot be read: No such file"), "{faults}");
}

#[cfg(unix)]
#[test]
fn variable_that_is_not_text_is_a_fault() {
    use std::os::unix::ffi::OsStringExt;
    let value = OsString::from_vec(b"\xff".to_vec());
    let environment = vec![("TOLLGATE__DATA_DIR".into(), value.clone()), ("OTHER".into(), value)];
    let faults = load(&Sources { environment, ..Sources::default() }).unwrap_err().to_string();
    assert!(faults.ends_with("\n  TOLLGATE__DATA_DIR: is not valid UTF-8"), "{faults}");
    assert!(faults.starts_with("1 fault in"), "{faults}");
}

#[test]
fn secrets_come_from_files_too() {
    let mut setup = Setup::new("", &[], &[]);
    let (url, key) =
        (setup.secret("url", "redis://:hunter2@h\r\n"), setup.secret("key", "k e y\n"));
    setup.sources.set = vec![
        Secret::new(&format!("redis.url_file={}", url.display())),
        Secret::new(&format!("sensitive_key_file={}", key.display())),
    ];
    let loaded = setup.load();
    assert_eq!(loaded.settings.redis.url.as_ref().unwrap().expose(), "redis://:hunter2@h");
    assert_eq!(loaded.settings.general.sensitive_key.as_ref().unwrap().expose(), "k e y");
    assert!(!format!("{loaded:?}{}", loaded.to_yaml()).contains("hunter2"));

    setup.sources.environment = vec![
        ("TOLLGATE__SENSITIVE_KEY".into(), "hunter2".into()),
        ("TOLLGATE__REDIS__URL".into(), "redis://h".into()),
    ];
    let faults = setup.faults();
    assert!(faults.contains("--set: sensitive_key_file: sensitive_key is set too"), "{faults}");
    assert!(faults.contains("--set: redis.url_file: redis.url is set too"), "{faults}");

    setup.sources.environment.clear();
    setup.secret("url", "hunter2");
    setup.secret("key", "\n");
    let faults = setup.faults();
    assert!(
        faults.contains("redis.url_file: url: ") && faults.contains("key is empty"),
        "{faults}"
    );
    assert!(!faults.contains("hunter2"), "{faults}");
}

#[test]
fn print_config_shows_meaning_and_origin_without_secrets() {
    let file = "grpc:\n  cores: 2\nsensitive_key: hunter2\nmodes: {edge: shadow}\n";
    let variables = [("TOLLGATE__REDIS__URL", "redis://ann:hunter2@h:1/2")];
    let setup = Setup::new(file, &variables, &["store.deadline=1500us"]);
    let loaded = setup.load();
    assert!(!format!("{:?}{loaded:?}", setup.sources).contains("hunter2"));
    let yaml = loaded.to_yaml();
    let yaml = yaml.replace(&format!("{}/", setup.directory.path().display()), "");
    for part in [
        "# The gRPC listener: rate limit decisions, health, reflection.\ngrpc:\n  # Address and port. Port 0",
        "\n  listen: \"0.0.0.0:8081\" # default\n",
        "\n  cores: 2 # tollgate.yaml:2:10\n",
        "\nsensitive_key: \"***\" # tollgate.yaml:3:16\n",
        "\nmodes: {edge: shadow} # tollgate.yaml:4:15\n",
        "\n  url: \"redis://ann:***@h:1/2\" # TOLLGATE__REDIS__URL\n",
        "\n  deadline: 1ms 500us # --set\n",
        "\n  path: null # default\n",
    ] {
        assert!(yaml.contains(part), "no {part:?} in\n{yaml}");
    }
    assert!(!yaml.contains("hunter2"), "{yaml}");
    for (section, key) in Key::all() {
        assert!(yaml.contains(&format!("{}: ", key.name)), "{}", key.dotted(section));
    }
}

#[test]
fn printed_secrets_are_refused_where_they_stand_and_may_come_from_elsewhere() {
    let file =
        "sensitive_key: hunter2\nadmin: {token: hunter2}\nredis: {url: 'redis://:hunter2@h'}\n";
    let printed = Setup::new(file, &[], &[]).load().to_yaml();
    assert!(!printed.contains("hunter2"), "{printed}");
    let line = |start: &str| 1 + printed.lines().position(|l| l.trim().starts_with(start)).unwrap();
    let faults = Setup::new(&printed, &[], &[]).faults();
    for (key, line, column) in [
        ("sensitive_key", line("sensitive_key: "), 16),
        ("admin.token", line("token: "), 10),
        ("redis.url", line("url: "), 8),
    ] {
        let fault = format!("tollgate.yaml:{line}:{column}: {key}: expected ");
        let found = faults.lines().find(|line| line.contains(&fault));
        let found = found.unwrap_or_else(|| panic!("no {fault:?} in\n{faults}"));
        assert!(found.contains("write the secret, or leave the key out"), "{found}");
    }
    assert!(faults.starts_with("3 faults"), "{faults}");
    let variables = [
        ("TOLLGATE__SENSITIVE_KEY", "hunter2"),
        ("TOLLGATE__ADMIN__TOKEN", "hunter2"),
        ("TOLLGATE__REDIS__URL", "redis://:hunter2@h"),
    ];
    let settings = Setup::new(&printed, &variables, &[]).load().settings;
    assert_eq!(settings.admin.token.unwrap().expose(), "hunter2");
}

#[test]
fn print_config_can_be_loaded_and_printed_again() {
    let file = "mode: off\nmodes: {\"a\\\"b\\n\": off, edge: shadow}\ndata_dir: 'a # b'\nredis: {key_prefix: 'no'}\n\
                log: {level: 'warn,a[b{c=\"d\"}]=info'}\ngrpc: {max_connection_age: 0s}\npolicies: {path: '~'}\n";
    let first = Setup::new(file, &[], &["redis.url=redis://ann@h"]).load();
    let printed = first.to_yaml();
    let again = Setup::new(&printed, &[], &[]).load();
    let without_origins = |yaml: &str| {
        let lines =
            yaml.lines().map(|line| line.rsplit_once(" # ").map_or(line, |(value, _)| value));
        lines.map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(without_origins(&printed), without_origins(&again.to_yaml()));
    assert_eq!(again.settings.general.modes, first.settings.general.modes);
    assert_eq!(again.settings.general.mode, Mode::Off);
    assert_eq!(again.settings.general.data_dir, PathBuf::from("a # b"));
    assert_eq!(again.settings.policies.path, Some(PathBuf::from("~")));
    assert_eq!(again.settings.redis.key_prefix, "no");
    assert_eq!(again.settings.log.level, first.settings.log.level);
    assert_eq!(again.settings.grpc.max_connection_age, None);
}
