//! `tollgate admin explain`: a decision with its reasons, by the server.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tollgate::edge::admin::pb;
use tollgate::edge::admin::pb::explain_response::{Counter, Descriptor};
use tollgate::edge::pb::rate_limit_descriptor::Entry as RlsEntry;
use tollgate::edge::pb::rate_limit_response::Code;
use tollgate::edge::pb::{RateLimitDescriptor, RateLimitRequest};

use super::connect::Connection;
use super::{ServerArgs, Target, show};
use crate::cli::exit::Outcome;

/// `tollgate admin explain`.
#[derive(Args, Debug)]
pub(super) struct ExplainArgs {
    #[command(flatten)]
    target: Target,
    /// Hits that the request states; 0 is a peek. Left out: it states none, and takes 1, or the
    /// estimate of a limit that holds
    #[arg(long, value_name = "N")]
    hits: Option<u64>,
}

/// Explains a request of one descriptor.
pub(super) async fn run(server: &ServerArgs, args: ExplainArgs) -> Outcome {
    let ExplainArgs { target: Target { domain, entries }, hits } = args;
    let entries = entries.into_iter();
    let descriptor = RateLimitDescriptor {
        entries: entries
            .map(|entry| RlsEntry { key: entry.key.into(), value: entry.value.into() })
            .collect(),
        hits_addend: hits,
        ..RateLimitDescriptor::default()
    };
    let request = RateLimitRequest {
        domain: domain.clone().into(),
        descriptors: vec![descriptor],
        hits_addend: 0,
    };
    let connection = Connection::open(server).await?;
    let answer = connection.explain(pb::ExplainRequest { request: Some(request) }).await?;
    if server.json {
        println!("{}", json(&answer));
    } else {
        print!("{}", text(&domain, &answer));
    }
    Ok(())
}

fn text(domain: &str, answer: &pb::ExplainResponse) -> String {
    let denied = answer.overall_code() == Code::OverLimit;
    let mut lines = vec![(if denied { "over limit" } else { "ok" }).to_owned()];
    let mut line = |name: &str, value: String| lines.push(format!("{name:<9} {value}"));
    if answer.mode() != pb::Mode::Enforce {
        line("mode", answer.mode().as_str_name().to_ascii_lowercase());
    }
    if !answer.domain_known() {
        line("no limit", format!("no policy and no client names the domain {domain}"));
        return lines.join("\n") + "\n";
    }
    for descriptor in &answer.descriptors {
        line("decided", decided(descriptor));
        if !descriptor.plan_missing.is_empty() {
            line("plan", format!("{} does not exist", descriptor.plan_missing));
        }
        if !descriptor.rule.is_empty() {
            line("rule", format!("{} at {}", descriptor.rule, descriptor.place));
        }
        // In shadow mode every descriptor is in it, which is said above.
        if descriptor.shadow() && answer.mode() == pb::Mode::Enforce {
            line("mode", "shadow".to_owned());
        }
        if descriptor.quota() {
            line("mode", "quota".to_owned());
        }
        if descriptor.unlimited() {
            line("limit", "unlimited".to_owned());
        }
        for counter in &descriptor.counters {
            let limit = counter.limit.as_ref().map(show::limit).unwrap_or_default();
            line("limit", format!("{limit}: {}", state(counter)));
            if let Some(hits) = counter.estimate {
                line("holds", estimate(hits, &counter.estimate_source));
            }
            line("counter", counter.key.clone());
        }
    }
    lines.join("\n") + "\n"
}

fn decided(descriptor: &Descriptor) -> String {
    match &*descriptor.decided_by {
        "client" if !descriptor.plan.is_empty() => {
            format!("by the client {}, plan {}", descriptor.client, descriptor.plan)
        }
        "client" => format!("by the client {}", descriptor.client),
        "rule" => "by the rule".to_owned(),
        "override" => "by the limit that the request brings".to_owned(),
        "invalid_override" => "by an override that cannot be understood".to_owned(),
        "hold" => "by the handle of a hold, which it ends".to_owned(),
        "out_of_bounds" => "by the bounds: the request is too large".to_owned(),
        _ => "by nothing: no rule and no client matches".to_owned(),
    }
}

fn estimate(hits: u64, source: &str) -> String {
    let source = match source {
        "request" => "as the request states",
        "rule" => "by the rule",
        "learned" => "as most requests before have cost at most",
        _ => "the most, until enough requests have ended to learn from",
    };
    format!("{hits} until the cost is known, {source}")
}

fn state(counter: &Counter) -> String {
    if counter.degraded() {
        return "unknown, the store did not answer".to_owned();
    }
    let verdict = match (counter.passes(), counter.retry_after_ms) {
        (true, _) => "passes".to_owned(),
        (false, Some(after)) => format!("denied for {}", millis(after)),
        (false, None) => "denied, and never passes".to_owned(),
    };
    let full = match counter.reset_after_ms() {
        0 => String::new(),
        reset => format!(", full again in {}", millis(reset)),
    };
    format!("{verdict}, {} left{full}", counter.remaining())
}

fn millis(millis: u64) -> String {
    humantime::format_duration(Duration::from_millis(millis)).to_string()
}

/// The names of the protocol.
fn json(answer: &pb::ExplainResponse) -> Value {
    let descriptors = answer.descriptors.iter().map(|descriptor| {
        let counters = descriptor.counters.iter().map(|counter| {
            json!({
                "limit": counter.limit.as_ref().map(show::limit),
                "key": counter.key,
                "passes": counter.passes(),
                "remaining": counter.remaining(),
                "retry_after_ms": counter.retry_after_ms,
                "reset_after_ms": counter.reset_after_ms(),
                "degraded": counter.degraded(),
                "estimate": counter.estimate,
                "estimate_source": counter.estimate_source,
            })
        });
        json!({
            "decided_by": descriptor.decided_by,
            "rule": descriptor.rule,
            "place": descriptor.place,
            "client": descriptor.client,
            "client_etag": descriptor.client_etag,
            "plan": descriptor.plan,
            "plan_missing": descriptor.plan_missing,
            "counters": counters.collect::<Vec<_>>(),
            "shadow": descriptor.shadow(),
            "quota": descriptor.quota(),
            "unlimited": descriptor.unlimited(),
            "over_limit": descriptor.over_limit(),
        })
    });
    json!({
        "overall_code": answer.overall_code().as_str_name(),
        "mode": answer.mode().as_str_name(),
        "domain_known": answer.domain_known(),
        "descriptors": descriptors.collect::<Vec<_>>(),
    })
}
