//! A Rust service that calls tollgate directly, without Envoy. It waits at most for a deadline,
//! fails open, and charges work whose cost is known only afterwards. A template to copy.
//!
//! Not a library. In your own service, generate the messages from `proto/envoy`, as `build.rs` does
//! here.
//!
//! ```sh
//! cargo run --release -- --policies deploy/snippets/policy.yaml
//! cargo run --release --example ask http://127.0.0.1:8081 acme
//! ```

use std::time::Duration;

use prost::Message as _;
use prost_types::value::Kind;
use prost_types::{Struct, Value};
use tollgate::edge::pb::rate_limit_response::Code;
use tollgate::edge::pb::rate_limit_service_client::RateLimitServiceClient;
use tollgate::edge::pb::{
    RateLimitDescriptor, RateLimitRequest, RateLimitResponse, rate_limit_descriptor::Entry,
};
use tonic::Request;
use tonic::transport::{Channel, Endpoint, Error};

/// Maximum time to wait for a decision. Longer than the store deadline of tollgate
/// (`store.deadline`), and short enough that users do not notice.
const DEADLINE: Duration = Duration::from_millis(50);

/// Maximum time to settle. No user waits for it.
const SETTLE_DEADLINE: Duration = Duration::from_secs(1);

const DOMAIN: &str = "snippets";

/// The decision of a request.
pub(crate) struct Decision {
    /// True if the request may proceed.
    passes: bool,
    /// The time until a retry can pass; `None`: never, or now.
    retry_after: Option<Duration>,
    /// False if no answer arrived in time, so that the request passes.
    decided: bool,
}

/// A client of one tollgate. Cheap to clone; use one per process.
#[derive(Clone)]
pub(crate) struct Limiter {
    client: RateLimitServiceClient<Channel>,
    deadline: Duration,
}

impl Limiter {
    /// Connects at the first request, and reconnects after a lost connection.
    pub(crate) fn new(url: String, deadline: Duration) -> Result<Self, Error> {
        let channel = Endpoint::from_shared(url)?.connect_lazy();
        Ok(Self { client: RateLimitServiceClient::new(channel), deadline })
    }

    /// Decides a request at a cost of one hit.
    async fn ask(&self, entries: &[(&str, &str)]) -> Decision {
        self.decide(entries, 1, self.deadline).await
    }

    /// Tests if a hit is left; charges nothing.
    async fn peek(&self, entries: &[(&str, &str)]) -> Decision {
        self.decide(entries, 0, self.deadline).await
    }

    /// Charges a cost that is already spent, so there is no decision. Never retried, because an
    /// interrupted call may have been charged.
    async fn settle(&self, entries: &[(&str, &str)], cost: u64) {
        // 0 hits would be a peek.
        if cost > 0 && !self.decide(entries, cost, SETTLE_DEADLINE.max(self.deadline)).await.decided
        {
            eprintln!("a cost of {cost} may not have been charged to {entries:?}");
        }
    }

    async fn decide(&self, entries: &[(&str, &str)], hits: u64, deadline: Duration) -> Decision {
        let mut request = Request::new(request(entries, hits));
        // With `grpc-timeout`, tollgate answers before the deadline of its caller.
        request.set_timeout(deadline);
        let mut client = self.client.clone();
        // This timeout also covers the time to connect.
        match tokio::time::timeout(deadline, client.should_rate_limit(request)).await {
            Ok(Ok(response)) => read(response.get_ref()),
            Ok(Err(status)) => undecided(&status.to_string()),
            Err(elapsed) => undecided(&elapsed.to_string()),
        }
    }
}

/// Fails open: limits protect the service and must not stop it.
fn undecided(reason: &str) -> Decision {
    eprintln!("passes without a decision: {reason}");
    Decision { passes: true, retry_after: None, decided: false }
}

fn request(entries: &[(&str, &str)], hits: u64) -> RateLimitRequest {
    let entry = |(key, value): &(&str, &str)| Entry {
        key: (*key).to_owned().into(),
        value: (*value).to_owned().into(),
    };
    let descriptor = RateLimitDescriptor {
        entries: entries.iter().map(entry).collect(),
        hits_addend: Some(hits),
        ..RateLimitDescriptor::default()
    };
    let domain = DOMAIN.to_owned().into();
    RateLimitRequest { domain, descriptors: vec![descriptor], hits_addend: 0 }
}

fn read(response: &RateLimitResponse) -> Decision {
    let passes = response.overall_code() != Code::OverLimit;
    let retry_after = if passes { None } else { retry_after(response) };
    Decision { passes, retry_after, decided: true }
}

/// The time until all descriptors over their limit would pass: in milliseconds from the metadata,
/// or in whole seconds if tollgate sends no metadata.
fn retry_after(response: &RateLimitResponse) -> Option<Duration> {
    // Bytes here. In messages generated without the patch in build.rs, it is a `Struct`.
    let metadata = Struct::decode(response.dynamic_metadata.clone()).unwrap_or_default();
    let details = Some(descriptors(&metadata)).filter(|descriptors| !descriptors.is_empty());
    let over = response.statuses.iter().enumerate().filter(|(_, s)| s.code() == Code::OverLimit);
    let waits = over.map(|(i, status)| match details {
        Some(descriptors) => millis(descriptors.get(i)?),
        None => status.duration_until_reset.and_then(|wait| wait.try_into().ok()),
    });
    // Absent for one descriptor: never.
    waits.collect::<Option<Vec<_>>>()?.into_iter().max()
}

fn descriptors(metadata: &Struct) -> &[Value] {
    match metadata.fields.get("descriptors").and_then(|value| value.kind.as_ref()) {
        Some(Kind::ListValue(list)) => &list.values,
        _ => &[],
    }
}

fn millis(descriptor: &Value) -> Option<Duration> {
    let Some(Kind::StructValue(fields)) = &descriptor.kind else { return None };
    match fields.fields.get("retry_after_ms")?.kind {
        Some(Kind::NumberValue(millis)) => Duration::try_from_secs_f64(millis / 1_000.0).ok(),
        _ => None,
    }
}

/// Serves a request of a tenant, and work whose cost is known only afterwards. Returns the outcome
/// of both.
pub(crate) async fn serve(limiter: &Limiter, tenant: &str) -> [String; 2] {
    let request = limiter.ask(&[("tenant", tenant)]).await;
    let budget = [("tenant", tenant), ("budget", "tokens")];
    let left = limiter.peek(&budget).await;
    let mut done = String::new();
    if left.passes {
        let cost = work();
        limiter.settle(&budget, cost).await;
        done = format!(", cost {cost}");
    }
    [format!("request: {request}"), format!("work: {left}{done}")]
}

/// A placeholder for the limited work; returns its cost.
fn work() -> u64 {
    80
}

impl std::fmt::Display for Decision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.passes, self.decided, self.retry_after) {
            (true, true, _) => f.write_str("passes"),
            (true, false, _) => f.write_str("passes, undecided"),
            (false, _, Some(wait)) => write!(f, "denied, retry after {:.3} s", wait.as_secs_f64()),
            (false, _, None) => f.write_str("denied"),
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(url), Some(tenant)) = (arguments.next(), arguments.next()) else {
        return Err("usage: ask URL TENANT".into());
    };
    let limiter = Limiter::new(url, DEADLINE)?;
    println!("{}", serve(&limiter, &tenant).await.join("\n"));
    Ok(())
}
