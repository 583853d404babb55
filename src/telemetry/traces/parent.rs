//! The caller's span, from the headers of W3C Trace Context. No other form of context is read.
//!
//! Source: <https://www.w3.org/TR/trace-context>. A malformed `traceparent` is none, and a
//! malformed `tracestate` an empty one.

use http::HeaderMap;
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

/// The version that this follows. Later ones may only add fields at the end.
const VERSION: &[u8] = b"00";

/// The version that the specification forbids.
const FORBIDDEN: &[u8] = b"ff";

/// The bytes of `VERSION-TRACE-SPAN-FLAGS`.
const BYTES: usize = 55;

/// The longest `tracestate` that is passed on. The specification asks for 512 at least.
const MAX_STATE_BYTES: usize = 4_096;

/// The span of the caller.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Parent {
    pub(super) trace: TraceId,
    span: SpanId,
    pub(super) sampled: bool,
}

impl Parent {
    /// The parent that `headers` name; none without one, or with several.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all("traceparent").iter();
        let value = values.next().filter(|_| values.next().is_none())?;
        Self::parse(value.as_bytes())
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let (text, rest) = text.split_at_checked(BYTES)?;
        let mut fields = text.split(|byte| *byte == b'-');
        let (version, trace) = (fields.next()?, fields.next()?);
        let (span, flags) = (fields.next()?, fields.next()?);
        let later = version != VERSION && rest.first().is_none_or(|byte| *byte == b'-');
        let sound = version != FORBIDDEN && (rest.is_empty() || later);
        let [_] = hex::<1>(version).filter(|_| sound)?;
        let (trace, span) = (TraceId::from_bytes(hex(trace)?), SpanId::from_bytes(hex(span)?));
        let [flags] = hex(flags)?;
        let valid = trace != TraceId::INVALID && span != SpanId::INVALID;
        valid.then_some(Self { trace, span, sampled: flags & 1 == 1 })
    }

    /// The parent as the SDK has it, with the `tracestate` of `headers`.
    pub(super) fn context(&self, headers: &HeaderMap) -> SpanContext {
        let flags = TraceFlags::default().with_sampled(self.sampled);
        SpanContext::new(self.trace, self.span, flags, true, state(headers))
    }
}

/// The `tracestate`, whose parts may come in several headers.
fn state(headers: &HeaderMap) -> TraceState {
    let mut values = headers.get_all("tracestate").iter().map(|value| value.to_str());
    let joined = values.try_fold(String::new(), |joined, value| {
        let value = value.ok()?;
        let comma = if joined.is_empty() { "" } else { "," };
        (joined.len() + value.len() < MAX_STATE_BYTES).then(|| joined + comma + value)
    });
    let text = joined.filter(|text| !text.is_empty());
    text.and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// The bytes of `text`, which is lower-case hexadecimal of exactly that length.
fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    let (pairs, rest) = text.as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (name.parse().unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap())
            })
            .collect()
    }

    fn parse(text: &str) -> Option<(String, String, bool)> {
        let parent = Parent::of(&headers(&[("traceparent", text)]))?;
        Some((parent.trace.to_string(), parent.span.to_string(), parent.sampled))
    }

    #[test]
    fn parent_has_trace_span_and_decision() {
        let parent = |sampled| Some((TRACE.to_owned(), SPAN.to_owned(), sampled));
        assert_eq!(parse(&format!("00-{TRACE}-{SPAN}-01")), parent(true));
        assert_eq!(parse(&format!("00-{TRACE}-{SPAN}-00")), parent(false));
        assert_eq!(parse(&format!("00-{TRACE}-{SPAN}-ff")), parent(true), "unknown flags");
        assert_eq!(parse(&format!("cc-{TRACE}-{SPAN}-01-what")), parent(true), "a later version");
    }

    #[test]
    fn malformed_parent_is_none() {
        for text in [
            String::new(),
            "hello".to_owned(),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-1"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("cc-{TRACE}-{SPAN}-01more"),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("0x-{TRACE}-{SPAN}-01"),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{}-{SPAN}-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00-{SPAN}-{TRACE}-01"),
            format!("00-{TRACE}-{SPAN}-+1"),
            "-".repeat(55),
            "é".repeat(40),
        ] {
            assert_eq!(parse(&text), None, "{text}");
        }
        let one = format!("00-{TRACE}-{SPAN}-01");
        let twice = [("traceparent", &*one), ("traceparent", &*one)];
        assert_eq!(
            Parent::of(&twice.iter().fold(HeaderMap::new(), |mut map, (name, value)| {
                map.append(*name, value.parse().unwrap());
                map
            })),
            None
        );
        assert_eq!(Parent::of(&HeaderMap::new()), None);
    }

    #[test]
    fn state_is_joined_and_bounded() {
        let parent = Parent::parse(format!("00-{TRACE}-{SPAN}-01").as_bytes()).unwrap();
        let state = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("tracestate", value.parse().unwrap());
            }
            parent.context(&headers).trace_state().header()
        };
        assert_eq!(state(&["a=1", "b=2"]), "a=1,b=2");
        assert_eq!(state(&["A=1"]), "", "malformed");
        assert_eq!(state(&[]), "");
        assert_eq!(state(&[&format!("a={}", "x".repeat(MAX_STATE_BYTES))]), "");
    }
}
