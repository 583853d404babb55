//! Encodes the answer to a call straight to its frame, without the message of the protocol.
//!
//! Its tests have an oracle that fills in the message.
//!
//! Source: envoy/service/ratelimit/v3/rls.proto for the numbers of the fields.

use std::cell::RefCell;
use std::fmt::{Display, Write as _};

use bytes::Bytes;

use super::headers::{delay, headers, whole_seconds};
use super::metadata::write_metadata;
use super::response::{Responder, code, unit};
use super::structs::Text;
use super::unary::PREFIX_BYTES;
use super::wire::{content, nested, number};
use crate::domain::Verdict;
use crate::limiter::report::Report;
use crate::limiter::request::Request;
use crate::limiter::status::{Decision, Limited, Outcome, Status};

/// Larger buffers of a thread are not kept.
const MAX_KEPT_BYTES: usize = 64 << 10;

thread_local!(static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) });

impl Responder {
    /// The frame of the response to `request`.
    pub(super) fn frame(&self, request: &Request, decision: &Decision) -> Bytes {
        framed(|out| {
            number(out, 0x08, code(decision.verdict == Verdict::Deny) as u64);
            for status in &decision.statuses {
                nested(out, 0x12, |out| write_status(out, status));
            }
            headers(&self.settings, decision, |name, value| write_header(out, 0x1a, name, value));
            if let Some((name, wait)) = delay(self.delay_header.as_ref(), decision) {
                write_header(out, 0x22, name, &wait);
            }
            if self.settings.dynamic_metadata {
                nested(out, 0x32, |out| write_metadata(out, request, decision, &self.hasher));
            }
        })
    }
}

/// The frame of a response without details: the code alone.
pub(super) fn bare(verdict: Verdict) -> Bytes {
    framed(|out| number(out, 0x08, code(verdict == Verdict::Deny) as u64))
}

/// The frame of the message that `write` appends. It is written to a buffer of the thread, so that
/// it takes one allocation of its size.
fn framed(write: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    BUFFER.with_borrow_mut(|out| {
        out.clear();
        out.extend_from_slice(&[0; PREFIX_BYTES]);
        write(out);
        let length = out.len().saturating_sub(PREFIX_BYTES) as u32;
        if let Some(place) = out.get_mut(1..PREFIX_BYTES) {
            place.copy_from_slice(&length.to_be_bytes());
        }
        let frame = Bytes::copy_from_slice(out);
        if out.capacity() > MAX_KEPT_BYTES {
            *out = Vec::new();
        }
        frame
    })
}

fn write_status(out: &mut Vec<u8>, status: &Status) {
    number(out, 0x08, code(status.over_limit()) as u64);
    match &status.outcome {
        Outcome::NoLimit
        | Outcome::NoRule
        | Outcome::UnknownDomain
        | Outcome::InvalidOverride
        | Outcome::Settled
        | Outcome::InvalidHold
        | Outcome::OutOfBounds => {}
        Outcome::Unlimited => number(out, 0x18, u32::MAX.into()),
        Outcome::Limited(limited) => write_limited(out, limited),
    }
}

/// Without the store the remaining hits are unknown, so no limit is named: Envoy would write its
/// numbers to `x-ratelimit` headers. A denial still says when to come back.
fn write_limited(out: &mut Vec<u8>, limited: &Limited) {
    if limited.counted {
        nested(out, 0x12, |out| write_limit(out, &limited.limit));
        number(out, 0x18, limited.remaining.min(u32::MAX.into()));
    }
    if limited.counted || !limited.passed {
        let seconds = whole_seconds(limited.reset_after).min(i64::MAX as u64);
        nested(out, 0x22, |out| number(out, 0x08, seconds));
    }
}

fn write_limit(out: &mut Vec<u8>, limit: &Report) {
    let (unit, many) = unit(limit);
    number(out, 0x08, limit.requests_per_unit.into());
    number(out, 0x10, unit as u64);
    if let Some(name) = limit.name.as_deref().filter(|name| !name.is_empty()) {
        content(out, 0x1a, name.as_bytes());
    }
    if let Some(many) = many {
        nested(out, 0x22, |out| number(out, 0x08, many.into()));
    }
}

fn write_header(out: &mut Vec<u8>, key: u8, name: &str, value: &dyn Display) {
    nested(out, key, |out| {
        content(out, 0x0a, name.as_bytes());
        nested(out, 0x12, |out| {
            // Writing to memory cannot fail.
            let _ = write!(Text(out), "{value}");
        });
    });
}

#[cfg(test)]
mod tests;
