//! Variables of the limits and of the answers.

use super::adopt::Adopter;
use super::go;

pub(super) fn adopt(adopter: &mut Adopter<'_>) {
    match adopter.text("CONFIG_TYPE").unwrap_or("FILE") {
        "FILE" => files(adopter),
        "GRPC_XDS_SOTW" => xds(adopter),
        other => {
            let message = format!("found {other:?}, expected FILE or GRPC_XDS_SOTW");
            adopter.refuse("CONFIG_TYPE", message);
        }
    }
    adopter.copy_flag("MERGE_DOMAIN_CONFIG", "policies.merge_domains");
    adopter.copy_flag("QUOTA_MODE", "policies.quota_mode");
    adopter.copy_flag("USE_CALENDAR_MONTH_RATE_LIMIT", "policies.calendar_months");
    if adopter.flag("SHADOW_MODE") {
        adopter.set("SHADOW_MODE", "mode", "shadow");
    }
    let backend = adopter.text("BACKEND_TYPE").unwrap_or("redis");
    if backend != "redis" {
        let message = format!(
            "found {backend:?}: tollgate has no such store; set REDIS_URL, or unset BACKEND_TYPE to \
             count in memory"
        );
        adopter.refuse("BACKEND_TYPE", message);
    }
    answers(adopter);
}

/// The directory is `ROOT/SUBDIRECTORY/APPDIRECTORY`.
fn files(adopter: &mut Adopter<'_>) {
    let root = adopter.text("RUNTIME_ROOT").unwrap_or("/srv/runtime_data/current");
    let mut path = std::path::PathBuf::from(root);
    path.extend(adopter.text("RUNTIME_SUBDIRECTORY"));
    path.push(adopter.text("RUNTIME_APPDIRECTORY").unwrap_or("config"));
    adopter.set("RUNTIME_ROOT", "policies.path", path.to_string_lossy());
}

fn xds(adopter: &mut Adopter<'_>) {
    const SERVER: &str = "CONFIG_GRPC_XDS_SERVER_URL";
    const METADATA: &str = "CONFIG_GRPC_XDS_NODE_METADATA";
    const HEADERS: &str = "CONFIG_GRPC_XDS_CLIENT_ADDITIONAL_HEADERS";
    let server = adopter.text(SERVER).unwrap_or("localhost:18000");
    adopter.set(SERVER, "xds.server", server);
    let node = adopter.text("CONFIG_GRPC_XDS_NODE_ID").unwrap_or("default");
    adopter.set("CONFIG_GRPC_XDS_NODE_ID", "xds.node_id", node);
    if adopter.parsed(METADATA, "k=v,k2=v2", |text| go::pairs(text, '=')).is_some() {
        adopter.copy(METADATA, "xds.node_metadata");
    }
    if let Some(pairs) = adopter.parsed(HEADERS, "k:v,k2:v2", |text| go::pairs(text, ':')) {
        let pairs = pairs.iter().map(|(name, value)| format!("{name}={value}"));
        adopter.set(HEADERS, "xds.headers", pairs.collect::<Vec<_>>().join(","));
    }
    adopter.copy_flag("FORCE_START_WITHOUT_INITIAL_CONFIG", "policies.start_without");
    if adopter.flag("CONFIG_GRPC_XDS_SERVER_USE_TLS") {
        adopter.set("CONFIG_GRPC_XDS_SERVER_USE_TLS", "xds.tls.enabled", "true");
        adopter.copy("CONFIG_GRPC_XDS_CLIENT_TLS_CERT", "xds.tls.cert_file");
        adopter.copy("CONFIG_GRPC_XDS_CLIENT_TLS_KEY", "xds.tls.key_file");
        adopter.copy("CONFIG_GRPC_XDS_SERVER_TLS_CACERT", "xds.tls.ca_file");
        adopter.copy("CONFIG_GRPC_XDS_SERVER_TLS_SAN", "xds.tls.server_name");
    }
    backoff(adopter);
    // 0 is the default of gRPC, which is too small for large installations.
    if let Some(bytes) = adopter.number::<usize>("XDS_CLIENT_MAX_MSG_SIZE_IN_BYTES")
        && bytes > 0
    {
        let bytes = bytes.to_string();
        adopter.set("XDS_CLIENT_MAX_MSG_SIZE_IN_BYTES", "xds.max_message_bytes", bytes);
    }
}

fn backoff(adopter: &mut Adopter<'_>) {
    const FACTOR: &str = "XDS_CLIENT_BACKOFF_RANDOM_FACTOR";
    adopter.copy_duration("XDS_CLIENT_BACKOFF_INITIAL_INTERVAL", "xds.backoff.initial");
    adopter.copy_duration("XDS_CLIENT_BACKOFF_MAX_INTERVAL", "xds.backoff.max");
    adopter.copy_flag("XDS_CLIENT_BACKOFF_JITTER", "xds.backoff.jitter");
    match adopter.number::<f64>(FACTOR) {
        Some(factor) if factor < 1.0 => {
            adopter.warn(FACTOR, "below 1 would never wait longer; 2 is used");
        }
        Some(factor) => adopter.set(FACTOR, "xds.backoff.factor", factor.to_string()),
        None => {}
    }
}

fn answers(adopter: &mut Adopter<'_>) {
    adopter.copy_flag("RESPONSE_DYNAMIC_METADATA", "response.dynamic_metadata");
    if adopter.flag("LIMIT_RESPONSE_HEADERS_ENABLED") {
        adopter.set("LIMIT_RESPONSE_HEADERS_ENABLED", "response.headers", "reference");
    }
    adopter.copy("LIMIT_LIMIT_HEADER", "response.limit_header");
    adopter.copy("LIMIT_REMAINING_HEADER", "response.remaining_header");
    adopter.copy("LIMIT_RESET_HEADER", "response.reset_header");
}
