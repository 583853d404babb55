//! The deployment's files as data: YAML as JSON values, and the stack that each side describes.

use std::path::Path;

use serde_json::Value;

/// Where everything listens and what is read, as one side of the deployment has it.
#[derive(Debug, PartialEq)]
pub(crate) struct Stack {
    pub(crate) edge: u16,
    pub(crate) envoy_admin: u16,
    pub(crate) redis: u16,
    pub(crate) tollgates: Vec<Tollgate>,
    pub(crate) backends: Vec<u16>,
    /// Relative to the repository's root.
    pub(crate) policies: String,
    /// Relative to the repository's root.
    pub(crate) envoy_config: String,
    /// What operators send to each tollgate.
    pub(crate) admin_token: String,
}

/// The ports of one tollgate, and the Redis it uses.
#[derive(Debug, PartialEq)]
pub(crate) struct Tollgate {
    pub(crate) grpc: u16,
    pub(crate) admin: u16,
    pub(crate) http: u16,
    pub(crate) redis: u16,
}

impl Stack {
    /// As deploy/demo.sh starts it: from the variables at its head, which it has to use in its commands.
    pub(crate) fn native() -> Self {
        let script = read("deploy/demo.sh");
        for used in [
            r#"--policies "$POLICIES""#,
            r#"--redis-url "redis://$REDIS""#,
            r#"--set "grpc.listen=${TOLLGATE_GRPC[$i]}""#,
            r#"--set "admin.listen=${TOLLGATE_ADMIN[$i]}""#,
            r#"--set "http.listen=${TOLLGATE_HTTP[$i]}""#,
            r#"--listen "${BACKENDS[$i]}""#,
            r#"--port "${REDIS##*:}""#,
            "TOLLGATE__ADMIN__TOKEN=$ADMIN_TOKEN start",
        ] {
            assert!(script.contains(used), "deploy/demo.sh does not use {used}");
        }
        let (redis, admin, http) = (
            ports(&script, "REDIS")[0],
            ports(&script, "TOLLGATE_ADMIN"),
            ports(&script, "TOLLGATE_HTTP"),
        );
        let grpc = ports(&script, "TOLLGATE_GRPC");
        assert_eq!((admin.len(), http.len()), (grpc.len(), grpc.len()));
        let tollgates = grpc
            .iter()
            .zip(admin.iter().zip(&http))
            .map(|(&grpc, (&admin, &http))| Tollgate { grpc, admin, http, redis })
            .collect();
        Self {
            edge: ports(&script, "EDGE")[0],
            envoy_admin: ports(&script, "ENVOY_ADMIN")[0],
            redis,
            tollgates,
            backends: ports(&script, "BACKENDS"),
            policies: variable(&script, "POLICIES").to_owned(),
            envoy_config: variable(&script, "ENVOY_CONFIG").to_owned(),
            admin_token: variable(&script, "ADMIN_TOKEN").to_owned(),
        }
    }

    /// As docker-compose.yml starts it. Envoy's own ports are those of the file it is given.
    pub(crate) fn containers() -> Self {
        let compose = compose();
        let services = compose["services"].as_object().unwrap();
        let numbered = |prefix: &'static str| {
            services
                .iter()
                .filter(move |(name, _)| name.starts_with(prefix))
                .map(|(_, service)| service)
        };
        let envoy = &services["envoy"];
        let config = on_host(envoy, after(envoy, "-c"));
        let bootstrap = yaml(&config);
        let port = |holder: &Value| {
            u16::try_from(holder["address"]["socket_address"]["port_value"].as_u64().unwrap())
                .unwrap()
        };
        let of_tollgates = |tell: fn(&Value) -> String| same(numbered("tollgate-").map(tell));
        let token =
            |service: &Value| text(&service["environment"]["TOLLGATE__ADMIN__TOKEN"]).to_owned();
        Self {
            edge: port(&bootstrap["static_resources"]["listeners"][0]),
            envoy_admin: port(&bootstrap["admin"]),
            redis: after(&services["redis"], "--port").parse().unwrap(),
            tollgates: numbered("tollgate-").map(Tollgate::container).collect(),
            backends: numbered("backend-")
                .map(|service| port_of(flag(service, "--listen=")))
                .collect(),
            policies: of_tollgates(|service| on_host(service, flag(service, "--policies="))),
            envoy_config: config,
            admin_token: of_tollgates(token),
        }
    }
}

impl Tollgate {
    fn container(service: &Value) -> Self {
        Self {
            grpc: port_of(flag(service, "--set=grpc.listen=")),
            admin: port_of(flag(service, "--set=admin.listen=")),
            http: port_of(flag(service, "--set=http.listen=")),
            redis: port_of(flag(service, "--redis-url=redis://")),
        }
    }
}

pub(crate) fn compose() -> Value {
    yaml("docker-compose.yml")
}

pub(crate) fn envoy() -> Value {
    yaml("deploy/envoy/envoy.yaml")
}

pub(crate) fn policies() -> Value {
    yaml("deploy/policies/edge.yaml")
}

/// A file of the repository, by its path from the root.
pub(crate) fn read(path: &str) -> String {
    let full = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&full).unwrap_or_else(|error| panic!("{path}: {error}"))
}

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("not a string: {value}"))
}

/// The items of a list; a missing list has none.
pub(crate) fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

pub(crate) fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// `NAME=value` at the start of a line of a script.
fn variable<'a>(script: &'a str, name: &str) -> &'a str {
    let assigned = |line: &'a str| line.strip_prefix(name)?.strip_prefix('=');
    script.lines().find_map(assigned).unwrap_or_else(|| panic!("no {name} in the script"))
}

/// The ports of `NAME=host:port` or `NAME=(host:port ...)`, all of them on loopback.
fn ports(script: &str, name: &str) -> Vec<u16> {
    let addresses = variable(script, name).trim_matches(['(', ')']).split_whitespace();
    let on_loopback = |address: &str| {
        assert!(address.starts_with("127.0.0.1:"), "{name}: {address}");
        port_of(address)
    };
    addresses.map(on_loopback).collect()
}

fn port_of(address: &str) -> u16 {
    address.rsplit_once(':').unwrap().1.parse().unwrap()
}

/// The one value that all have.
fn same(values: impl Iterator<Item = String>) -> String {
    let values: Vec<_> = values.collect();
    assert!(values.windows(2).all(|pair| pair[0] == pair[1]), "{values:?}");
    values[0].clone()
}

/// The rest of the one argument of a service's command that begins with `prefix`.
fn flag<'a>(service: &'a Value, prefix: &str) -> &'a str {
    let found: Vec<_> = array(&service["command"])
        .iter()
        .filter_map(|argument| text(argument).strip_prefix(prefix))
        .collect();
    assert_eq!(found.len(), 1, "{prefix} in {}", service["command"]);
    found[0]
}

/// The argument that follows `name` in a service's command.
fn after<'a>(service: &'a Value, name: &str) -> &'a str {
    let command = array(&service["command"]);
    let at = command.iter().position(|argument| argument == name).unwrap();
    text(&command[at + 1])
}

/// A path inside a container as a path in the repository, by the service's one volume.
fn on_host(service: &Value, path: &str) -> String {
    let [volume] = array(&service["volumes"]) else { panic!("one volume expected: {service}") };
    let mut parts = text(volume).split(':');
    let (host, inside) = (parts.next().unwrap(), parts.next().unwrap());
    let below = path.strip_prefix(inside).unwrap_or_else(|| panic!("{path} is not below {inside}"));
    format!("{}{below}", host.strip_prefix("./").unwrap())
}
