//! Headers: methods, paths, pseudo-headers, those that HTTP/2 forbids, timeouts.

use super::{Call, Corner, corner, malformed};
use crate::support::grpc::SHOULD_RATE_LIMIT;

pub fn corners() -> Vec<Corner> {
    [methods(), pseudo(), forbidden(), lengths(), timeouts(), values()]
        .into_iter()
        .flatten()
        .collect()
}

fn methods() -> Vec<Corner> {
    let method = |name| Call::good().set(":method", name);
    let path = |path| Call::good().set(":path", path);
    let of_type = |name| Call::good().set("content-type", name);
    vec![
        corner("GET", method("GET"), "200 grpc 12"),
        corner("GET without a body", method("GET").empty(), "200 grpc 12"),
        corner("PUT", method("PUT"), "200 grpc 12"),
        corner("HEAD", method("HEAD").empty(), "200 grpc 12"),
        corner("OPTIONS", method("OPTIONS").empty(), "200 grpc 12"),
        corner("CONNECT with :path", method("CONNECT").empty(), "reset PROTOCOL_ERROR"),
        corner(
            "CONNECT",
            method("CONNECT").without(":path").without(":scheme").empty(),
            "200 grpc 12",
        ),
        corner("post", method("post"), "200 grpc 12"),
        malformed("no method", method("")),
        malformed("a method with a space", method("PO ST")),
        corner(
            "GET of health",
            Call::of("/grpc.health.v1.Health/Check").set(":method", "GET"),
            "200 grpc 13",
        ),
        corner(
            "an unknown method",
            path("/envoy.service.ratelimit.v3.RateLimitService/X"),
            "200 grpc 12",
        ),
        corner("an unknown service", path("/x.Y/Z"), "200 grpc 12"),
        corner("no service", path("/"), "200 grpc 12"),
        corner("an asterisk", path("*"), "200 grpc 12"),
        corner("a path without a slash", path(&SHOULD_RATE_LIMIT[1..]), "reset PROTOCOL_ERROR"),
        corner("a slash more", path(&format!("{SHOULD_RATE_LIMIT}/")), "200 grpc 12"),
        corner("a query", path(&format!("{SHOULD_RATE_LIMIT}?x=y")), "200 grpc 0 + message"),
        corner(
            "an absolute path",
            path(&format!("http://x{SHOULD_RATE_LIMIT}")),
            "reset PROTOCOL_ERROR",
        ),
        corner("a path with a space", path("/x y"), "reset PROTOCOL_ERROR"),
        corner("an empty path", path(""), "reset PROTOCOL_ERROR"),
        corner("capitals", path(&SHOULD_RATE_LIMIT.to_uppercase()), "200 grpc 12"),
        corner("application/grpc+proto", of_type("application/grpc+proto"), "200 grpc 0 + message"),
        corner("application/grpc;x=y", of_type("application/grpc;x=y"), "200 grpc 0 + message"),
        corner("application/grpc+json", of_type("application/grpc+json"), "200 grpc 0 + message"),
        corner("application/grpc-web", of_type("application/grpc-web"), "200 grpc 0 + message"),
        corner("application/json", of_type("application/json"), "200 grpc 0 + message"),
        corner("text/plain", of_type("text/plain"), "200 grpc 0 + message"),
        corner("no content-type", Call::good().without("content-type"), "200 grpc 0 + message"),
    ]
}

fn pseudo() -> Vec<Corner> {
    let without = |name| Call::good().without(name);
    vec![
        corner("no :path", without(":path"), "reset PROTOCOL_ERROR"),
        corner("no :method", without(":method"), "reset PROTOCOL_ERROR"),
        corner("no :scheme", without(":scheme"), "reset PROTOCOL_ERROR"),
        corner("no :authority", without(":authority"), "200 grpc 0 + message"),
        corner("host alone", without(":authority").with("host", "x"), "200 grpc 0 + message"),
        corner("another host", Call::good().with("host", "y"), "200 grpc 0 + message"),
        corner("an empty :authority", Call::good().set(":authority", ""), "reset PROTOCOL_ERROR"),
        corner(
            "an :authority with a space",
            Call::good().set(":authority", "a b"),
            "reset PROTOCOL_ERROR",
        ),
        corner(
            "an :authority with a user",
            Call::good().set(":authority", "u@x"),
            "200 grpc 0 + message",
        ),
        corner("https in clear", Call::good().set(":scheme", "https"), "200 grpc 0 + message"),
        corner("an unknown scheme", Call::good().set(":scheme", "ftp"), "200 grpc 0 + message"),
        corner("no scheme", Call::good().set(":scheme", ""), "200 grpc 0 + message"),
        corner("a scheme of signs", Call::good().set(":scheme", "a b"), "reset PROTOCOL_ERROR"),
        corner(
            ":path late",
            without(":path").with(":path", SHOULD_RATE_LIMIT),
            "reset PROTOCOL_ERROR",
        ),
        corner(
            "no headers",
            Call::good()
                .without(":method")
                .without(":scheme")
                .without(":path")
                .without(":authority")
                .without("content-type")
                .without("te"),
            "reset PROTOCOL_ERROR",
        ),
        corner(":status", late_free(":status", "200"), "reset PROTOCOL_ERROR"),
        malformed(":unknown", late_free(":unknown", "x")),
        corner(":protocol", late_free(":protocol", "websocket"), "reset PROTOCOL_ERROR"),
        corner(":path twice", late_free(":path", SHOULD_RATE_LIMIT), "reset PROTOCOL_ERROR"),
        corner(":method twice", late_free(":method", "POST"), "reset PROTOCOL_ERROR"),
    ]
}

/// A good call with one more pseudo-header, before all headers that are none.
fn late_free(name: &str, value: &str) -> Call {
    let call = Call::good().without("content-type").without("te").with(name, value);
    call.with("content-type", "application/grpc").with("te", "trailers")
}

fn forbidden() -> Vec<Corner> {
    let with = |name, value| Call::good().with(name, value);
    vec![
        malformed("capitals in a name", with("X-Long", "y")),
        corner("connection", with("connection", "close"), "reset PROTOCOL_ERROR"),
        corner("keep-alive", with("keep-alive", "timeout=5"), "reset PROTOCOL_ERROR"),
        corner("proxy-connection", with("proxy-connection", "close"), "reset PROTOCOL_ERROR"),
        corner("transfer-encoding", with("transfer-encoding", "chunked"), "reset PROTOCOL_ERROR"),
        corner("upgrade", with("upgrade", "h2c"), "reset PROTOCOL_ERROR"),
        corner("te of gzip", Call::good().set("te", "gzip"), "reset PROTOCOL_ERROR"),
        corner("te of more", Call::good().set("te", "trailers, deflate"), "reset PROTOCOL_ERROR"),
        corner("te of none", Call::good().set("te", ""), "reset PROTOCOL_ERROR"),
        corner("te twice", with("te", "trailers"), "200 grpc 0 + message"),
        corner("no te", Call::good().without("te"), "200 grpc 0 + message"),
    ]
}

fn lengths() -> Vec<Corner> {
    let length = |length: &str| Call::good().with("content-length", length);
    let right = super::message().len();
    let (more, less) = ((right + 1).to_string(), (right - 1).to_string());
    let right = right.to_string();
    vec![
        corner("content-length", length(&right), "200 grpc 0 + message"),
        corner("content-length, too long", length(&more), "reset PROTOCOL_ERROR"),
        corner("content-length, too short", length(&less), "reset PROTOCOL_ERROR"),
        corner("content-length of 0", length("0"), "reset PROTOCOL_ERROR"),
        corner("content-length of 0, no DATA", length("0").empty(), "200 grpc 13"),
        corner("content-length of 5, no DATA", length("5").empty(), "reset PROTOCOL_ERROR"),
        corner(
            "content-length twice",
            length(&right).with("content-length", &right),
            "200 grpc 0 + message",
        ),
        corner(
            "two of content-length",
            length(&right).with("content-length", "9"),
            "reset PROTOCOL_ERROR",
        ),
        corner("content-length of a word", length("many"), "reset PROTOCOL_ERROR"),
        corner("content-length of a sign", length("+5"), "reset PROTOCOL_ERROR"),
        corner("no content-length", length(""), "reset PROTOCOL_ERROR"),
        corner(
            "content-length beyond 64 bits",
            length("99999999999999999999"),
            "reset PROTOCOL_ERROR",
        ),
    ]
}

fn timeouts() -> Vec<Corner> {
    let timeout = |value| Call::good().with("grpc-timeout", value);
    vec![
        corner("an hour", timeout("1H"), "200 grpc 0 + message"),
        corner("eight digits", timeout("99999999H"), "200 grpc 0 + message"),
        corner("nine digits", timeout("999999999S"), "200 grpc 0 + message"),
        corner("ten seconds", timeout("10000m"), "200 grpc 0 + message"),
        corner("no unit", timeout("10"), "200 grpc 0 + message"),
        corner("no number", timeout("S"), "200 grpc 0 + message"),
        corner("an unknown unit", timeout("10x"), "200 grpc 0 + message"),
        corner("a small unit of a large one", timeout("10h"), "200 grpc 0 + message"),
        corner("less than none", timeout("-1S"), "200 grpc 0 + message"),
        corner("a sign", timeout("+1S"), "200 grpc 0 + message"),
        corner("a space", timeout("1 S"), "200 grpc 0 + message"),
        corner("a fraction", timeout("1.5S"), "200 grpc 0 + message"),
        corner("no timeout", timeout(""), "200 grpc 0 + message"),
        corner("no time", timeout("0S"), "200 grpc 0 + message"),
        corner("two timeouts", timeout("1H").with("grpc-timeout", "2H"), "200 grpc 0 + message"),
    ]
}

fn values() -> Vec<Corner> {
    let with = |name: &[u8], value: &[u8]| Call::good().with_bytes(name, value);
    let long = "y".repeat(70_000);
    vec![
        corner("an empty value", with(b"x", b""), "200 grpc 0 + message"),
        malformed("an empty name", with(b"", b"x")),
        malformed("a name with a space", with(b"a b", b"x")),
        malformed("a name with a colon", with(b"a:b", b"x")),
        malformed("a name beyond ASCII", with(b"\xc3\xa4", b"x")),
        malformed("a value with NUL", with(b"x", b"a\0b")),
        malformed("a value with a line feed", with(b"x", b"a\nb")),
        malformed("a value with a return", with(b"x", b"a\rb")),
        corner("a value with a tab", with(b"x", b"a\tb"), "200 grpc 0 + message"),
        corner("a value with spaces around", with(b"x", b" a "), "200 grpc 0 + message"),
        malformed("a value with DEL", with(b"x", b"a\x7fb")),
        corner("a value beyond ASCII", with(b"x", b"\xff\xfe"), "200 grpc 0 + message"),
        corner("binary metadata", with(b"x-bin", b"AAEC"), "200 grpc 0 + message"),
        corner("binary metadata of no base64", with(b"x-bin", b"!"), "200 grpc 0 + message"),
        corner(
            "many of one name",
            (0..100).fold(Call::good(), |call, _| call.with("x", "y")),
            "200 grpc 0 + message",
        ),
        corner(
            "cookies",
            Call::good().with("cookie", "a=b").with("cookie", "c=d"),
            "200 grpc 0 + message",
        ),
        corner("60 KB of headers", Call::good().with("x", &long[..60_000]), "200 grpc 0 + message"),
        corner("a list beyond the bound", Call::good().with("x", &long), "431"),
    ]
}
