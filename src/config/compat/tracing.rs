//! Variables of traces: those of envoyproxy/ratelimit, and those of OpenTelemetry that it reads.

use super::adopt::Adopter;
use super::go;

const ENABLED: &str = "TRACING_ENABLED";
const PROTOCOL: &str = "TRACING_EXPORTER_PROTOCOL";
const RATE: &str = "TRACING_SAMPLING_RATE";
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";

/// The variables that say nothing while traces are off.
const OTHERS: [&str; 5] = [
    PROTOCOL,
    "TRACING_SERVICE_NAME",
    "TRACING_SERVICE_NAMESPACE",
    "TRACING_SERVICE_INSTANCE_ID",
    RATE,
];

/// Variables of OpenTelemetry that name a file, for traces and for all signals, and their settings.
const FILES: [([&str; 2], &str); 3] = [
    (
        ["OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"],
        "traces.tls.ca_file",
    ),
    (
        ["OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"],
        "traces.tls.cert_file",
    ),
    (
        ["OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "OTEL_EXPORTER_OTLP_CLIENT_KEY"],
        "traces.tls.key_file",
    ),
];

/// Values of compression variables that compress nothing.
const UNCOMPRESSED: &str = "none";

pub(super) fn adopt(adopter: &mut Adopter<'_>) {
    if !adopter.flag(ENABLED) {
        for name in OTHERS {
            adopter.accept(name, "needs nothing while TRACING_ENABLED is not true");
        }
        return;
    }
    let grpc = protocol(adopter);
    let https = endpoint(adopter, grpc);
    service(adopter);
    let rate = adopter.parsed(RATE, "a number from 0 to 1", |text| {
        text.parse().ok().filter(|rate: &f32| (0.0..=1.0).contains(rate))
    });
    adopter.set(RATE, "traces.ratio", rate.unwrap_or(1.0).to_string());
    headers(adopter);
    timeout(adopter);
    for (names, setting) in FILES {
        if let Some((name, path)) = first(adopter, names).filter(|_| https) {
            adopter.set(name, setting, path);
        }
    }
    let compression = ["OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION"];
    if let Some((name, text)) = first(adopter, compression)
        && text != UNCOMPRESSED
    {
        adopter.warn(name, "has no effect: exports of spans are not compressed");
    }
}

/// The first variable that has a value.
fn first<'a>(
    adopter: &mut Adopter<'a>,
    names: [&'static str; 2],
) -> Option<(&'static str, &'a str)> {
    names.into_iter().find_map(|name| Some((name, adopter.text(name)?)))
}

/// Returns true for gRPC.
fn protocol(adopter: &mut Adopter<'_>) -> bool {
    let named = adopter.parsed(PROTOCOL, "http or grpc", |text| match text {
        "http" => Some(false),
        "grpc" => Some(true),
        _ => None,
    });
    let names = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
    let grpc = named.or_else(|| first(adopter, names).map(|(_, text)| text == "grpc"));
    let grpc = grpc.unwrap_or_default();
    adopter.set(PROTOCOL, "traces.protocol", if grpc { "grpc" } else { "http" });
    grpc
}

/// Returns true for `https`.
fn endpoint(adopter: &mut Adopter<'_>, grpc: bool) -> bool {
    let whole = adopter.text(TRACES_ENDPOINT).map(|text| (TRACES_ENDPOINT, text.to_owned()));
    let base = whole.or_else(|| Some((ENDPOINT, based(adopter.text(ENDPOINT)?, grpc))));
    let default = if grpc { "http://localhost:4317" } else { "http://localhost:4318" };
    let (name, mut url) = base.unwrap_or_else(|| (ENDPOINT, default.to_owned()));
    if !url.contains("://") {
        let insecure = ["OTEL_EXPORTER_OTLP_TRACES_INSECURE", "OTEL_EXPORTER_OTLP_INSECURE"];
        let insecure = first(adopter, insecure).and_then(|(_, text)| go::flag(text));
        let scheme = if insecure == Some(true) { "http" } else { "https" };
        url = format!("{scheme}://{url}");
    }
    let https = url.starts_with("https://");
    adopter.set(name, "traces.endpoint", url);
    https
}

/// The URL of spans below that of all signals.
fn based(text: &str, grpc: bool) -> String {
    if grpc { text.to_owned() } else { format!("{}/v1/traces", text.trim_end_matches('/')) }
}

fn service(adopter: &mut Adopter<'_>) {
    const ATTRIBUTES: &str = "OTEL_RESOURCE_ATTRIBUTES";
    let names = ["TRACING_SERVICE_NAME", "OTEL_SERVICE_NAME"];
    let (name, service) = first(adopter, names).unwrap_or(("TRACING_SERVICE_NAME", "RateLimit"));
    adopter.set(name, "traces.service_name", service);
    let more = adopter.parsed(ATTRIBUTES, "k=v,k2=v2", |text| go::pairs(text, '='));
    let more = more.unwrap_or_default().into_iter();
    let mut attributes: Vec<_> = more.map(|(key, value)| format!("{key}={value}")).collect();
    let mut origin = ATTRIBUTES;
    for (variable, key) in [
        ("TRACING_SERVICE_NAMESPACE", "service.namespace"),
        ("TRACING_SERVICE_INSTANCE_ID", "service.instance.id"),
    ] {
        if let Some(value) = adopter.text(variable) {
            attributes.push(format!("{key}={value}"));
            origin = variable;
        }
    }
    if !attributes.is_empty() {
        adopter.set(origin, "traces.resource", attributes.join(","));
    }
}

fn headers(adopter: &mut Adopter<'_>) {
    let names = ["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"];
    let Some((name, _)) = first(adopter, names) else { return };
    let pairs = adopter.parsed(name, "k=v,k2=v2", |text| go::pairs(text, '='));
    let pairs = pairs.unwrap_or_default().into_iter();
    let pairs = pairs.map(|(key, value)| format!("{}={}", key.trim(), decoded(value.trim())));
    adopter.set(name, "traces.headers", pairs.collect::<Vec<_>>().join(","));
}

/// The text behind its percent-encoding, as the values of headers have it there.
fn decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let code = part.split_at_checked(2);
        let code = code.and_then(|(code, rest)| Some((u8::from_str_radix(code, 16).ok()?, rest)));
        if let Some((byte, rest)) = code {
            bytes.push(byte);
            bytes.extend_from_slice(rest.as_bytes());
        } else {
            bytes.push(b'%');
            bytes.extend_from_slice(part.as_bytes());
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The time of an export, there in milliseconds.
fn timeout(adopter: &mut Adopter<'_>) {
    let names = ["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"];
    let Some((name, _)) = first(adopter, names) else { return };
    if let Some(millis) = adopter.number::<u32>(name) {
        adopter.set(name, "traces.timeout", format!("{millis}ms"));
    }
}
