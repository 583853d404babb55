//! Variables of logs and metrics.

use std::net::SocketAddr;

use super::adopt::{Adopter, listening};
use super::go;

pub(super) fn adopt(adopter: &mut Adopter<'_>) {
    logs(adopter);
    prometheus(adopter);
    statsd(adopter);
    if let Some(ratio) = adopter.number::<f64>("NEAR_LIMIT_RATIO") {
        adopter.set("NEAR_LIMIT_RATIO", "metrics.near_limit_ratio", ratio.to_string());
    }
}

fn logs(adopter: &mut Adopter<'_>) {
    let level = |text: &str| match text.to_ascii_lowercase().as_str() {
        "panic" | "fatal" | "error" => Some("error"),
        "warn" | "warning" => Some("warn"),
        "info" => Some("info"),
        "debug" => Some("debug"),
        "trace" => Some("trace"),
        _ => None,
    };
    let expected = "one of panic, fatal, error, warn, info, debug, trace";
    if let Some(level) = adopter.parsed("LOG_LEVEL", expected, level) {
        adopter.set("LOG_LEVEL", "log.level", level);
    }
    let format = |text: &str| match text.to_ascii_lowercase().as_str() {
        "text" => Some("text"),
        "json" => Some("json"),
        _ => None,
    };
    if let Some(format) = adopter.parsed("LOG_FORMAT", "text or json", format) {
        adopter.set("LOG_FORMAT", "log.format", format);
    }
}

fn prometheus(adopter: &mut Adopter<'_>) {
    const MAPPER: &str = "PROMETHEUS_MAPPER_YAML";
    if !adopter.flag("USE_PROMETHEUS") {
        return;
    }
    let address = |text: &str| {
        let (host, port) = text.rsplit_once(':')?;
        let host = if host.is_empty() { "::" } else { host };
        Some(SocketAddr::new(listening(host)?, port.parse().ok()?))
    };
    let written = adopter.parsed("PROMETHEUS_ADDR", "HOST:PORT such as :9090", address);
    let address = written.or_else(|| address(":9090"));
    if let Some(address) = address {
        adopter.set("PROMETHEUS_ADDR", "http.metrics_listen", address.to_string());
    }
    adopter.copy("PROMETHEUS_PATH", "metrics.path");
    // The mapping of Envoy Gateway, whose ConfigMap is optional, names the same series.
    if let Some(path) = adopter.text(MAPPER)
        && std::path::Path::new(path).exists()
    {
        adopter.inform(MAPPER, "is not read: the series have the names of the built-in mapping");
    }
    if adopter.flag("PROMETHEUS_RESPONSE_TIME_AS_MILLISECONDS") {
        let name = "PROMETHEUS_RESPONSE_TIME_AS_MILLISECONDS";
        adopter.warn(name, "has no effect: the response time is in seconds, as its name says");
    }
}

/// statsd is on by default there. Where nothing names a server, nothing is sent: there is usually
/// none.
fn statsd(adopter: &mut Adopter<'_>) {
    let disabled = adopter.flag("DISABLE_STATS");
    let dog = adopter.flag("USE_DOG_STATSD");
    let wanted = adopter.parsed("USE_STATSD", go::FLAG, go::flag);
    let named = adopter.text("STATSD_HOST").is_some();
    if disabled || !(dog || wanted.unwrap_or(named)) {
        return;
    }
    let host = adopter.text("STATSD_HOST").unwrap_or("localhost");
    let port = adopter.number::<u16>("STATSD_PORT").unwrap_or(8125);
    let host = if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    adopter.set("STATSD_HOST", "statsd.address", format!("{host}:{port}"));
    if dog {
        adopter.set("USE_DOG_STATSD", "statsd.flavor", "dogstatsd");
        adopter.set("USE_DOG_STATSD", "statsd.protocol", "udp");
    } else {
        adopter.copy("STATSD_PROTOCOL", "statsd.protocol");
    }
    adopter.copy_duration("STATS_FLUSH_INTERVAL", "statsd.interval");
    if let Some(tags) = adopter.parsed("EXTRA_TAGS", "k:v,k2:v2", |text| go::pairs(text, ':')) {
        let tags = tags.iter().map(|(name, value)| format!("{name}={value}"));
        adopter.set("EXTRA_TAGS", "statsd.tags", tags.collect::<Vec<_>>().join(","));
    }
}
