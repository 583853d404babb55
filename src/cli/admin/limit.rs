//! `tollgate admin limit`, `block`, `unblock` and `reset`: one client.
//!
//! A new limit keeps the labels, the metadata, the modes and the plan of the client. The change
//! names the etag that was read, so that a concurrent change is not lost.

use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tollgate::edge::admin::pb;
use tollgate::edge::admin::pb::manage_clients_request::{Action, Delete, ResetUsage, Upsert};
use tollgate::policy::{AlgorithmName, Allowance, Rate};

use super::connect::Connection;
use super::line::Client;
use super::{ServerArgs, Target, show, time};
use crate::cli::descriptor::{self, Entry};
use crate::cli::exit::{Failure, Outcome};

/// `tollgate admin limit`.
#[derive(Args, Debug)]
pub(super) struct LimitArgs {
    /// Domain of the descriptor
    domain: String,
    /// Entries of the descriptor, in order, then its limits: 500/hour, 100/5minutes, unlimited;
    /// none removes them
    #[arg(required = true, value_name = "KEY=VALUE|RATE")]
    words: Vec<Word>,
    #[command(flatten)]
    rate: RateArgs,
    /// Time after which the rule holds again, such as 1h
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    lasts: Option<Duration>,
    /// A label for operators; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<Entry>,
}

/// The parts of limits that their words do not have.
#[derive(Args, Debug)]
pub(super) struct RateArgs {
    /// Most requests at once; makes the limit a token bucket
    #[arg(long, value_name = "N")]
    burst: Option<u32>,
    /// `sliding_window`, `token_bucket` or `fixed_window`; without it, that of the rule
    #[arg(long, value_name = "ALGORITHM")]
    algorithm: Option<AlgorithmName>,
}

/// `tollgate admin block`.
#[derive(Args, Debug)]
pub(super) struct BlockArgs {
    #[command(flatten)]
    target: Target,
    /// Time after which the rule holds again, such as 1h
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    lasts: Option<Duration>,
    /// A label for operators, such as ticket=4711; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<Entry>,
}

/// An entry, or a limit: an entry has an `=`, a limit has none.
#[derive(Clone, Debug)]
enum Word {
    Entry(Entry),
    Allowance(Allowance),
}

impl FromStr for Word {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains('=') {
            return text.parse().map(Self::Entry);
        }
        text.parse().map(Self::Allowance).map_err(|error: String| {
            format!("{error}; an entry of the descriptor is KEY=VALUE, such as user=alice")
        })
    }
}

/// The wanted state of a client.
struct Wanted {
    target: Target,
    limits: Vec<pb::Limit>,
    /// None: as they are.
    modes: Option<bool>,
    lasts: Option<Duration>,
    label: Vec<Entry>,
}

/// Gives a descriptor limits of its own, or removes them.
pub(super) async fn limit(server: &ServerArgs, args: LimitArgs) -> Outcome {
    let (mut entries, mut allowances) = (Vec::new(), Vec::new());
    for word in &args.words {
        match word {
            Word::Entry(entry) => entries.push(entry.clone()),
            Word::Allowance(allowance) => allowances.push(*allowance),
        }
    }
    if entries.is_empty() || allowances.is_empty() {
        let missing = if entries.is_empty() { "descriptor" } else { "limit" };
        return Err(Failure::Line(format!(
            "the {missing} is missing: write tollgate admin limit {} user=alice 500/hour",
            args.domain
        )));
    }
    let target = Target { domain: args.domain.clone(), entries };
    if allowances == [Allowance::None] {
        return remove(server, target).await;
    }
    let limits = allowances.into_iter().map(|allowance| args.rate.limit(allowance));
    let limits = limits.collect::<Result<_, _>>()?;
    let LimitArgs { lasts, label, .. } = args;
    put(server, Wanted { target, limits, modes: None, lasts, label }).await
}

impl RateArgs {
    pub(super) fn limit(&self, allowance: Allowance) -> Result<pb::Limit, Failure> {
        let refused = |text: &str| Err(Failure::Line(text.to_owned()));
        match allowance {
            Allowance::None => {
                refused("none stands alone: it removes all limits of the descriptor")
            }
            Allowance::Blocked => refused("to deny every request: tollgate admin block"),
            Allowance::Unlimited if self.burst.is_some() || self.algorithm.is_some() => {
                refused("unlimited has neither --burst nor --algorithm")
            }
            Allowance::Unlimited => Ok(pb::Limit { unlimited: true, ..pb::Limit::default() }),
            Allowance::Rate(rate) => self.rate(rate),
        }
    }

    fn rate(&self, Rate { requests, unit, multiplier }: Rate) -> Result<pb::Limit, Failure> {
        if self.burst == Some(0) {
            return Err(Failure::Line("--burst must be at least 1".to_owned()));
        }
        let algorithm = match (self.algorithm, self.burst) {
            (None, Some(_)) => Some(AlgorithmName::TokenBucket),
            (algorithm, _) => algorithm,
        };
        let unit = pb::Unit::from_str_name(&unit.name().to_ascii_uppercase()).unwrap_or_default();
        let algorithm = match algorithm {
            None => pb::Algorithm::Unspecified,
            Some(AlgorithmName::SlidingWindow) => pb::Algorithm::SlidingWindow,
            Some(AlgorithmName::TokenBucket) => pb::Algorithm::TokenBucket,
            Some(AlgorithmName::FixedWindow) => pb::Algorithm::FixedWindow,
        };
        Ok(pb::Limit {
            requests_per_unit: Some(requests),
            unit: unit.into(),
            unit_multiplier: if multiplier == 1 { 0 } else { multiplier },
            algorithm: algorithm.into(),
            burst: self.burst.unwrap_or_default(),
            ..pb::Limit::default()
        })
    }
}

/// Denies every request of a descriptor.
pub(super) async fn block(server: &ServerArgs, args: BlockArgs) -> Outcome {
    let BlockArgs { target, lasts, label } = args;
    let limit = pb::Limit {
        requests_per_unit: Some(0),
        unit: pb::Unit::Second.into(),
        ..pb::Limit::default()
    };
    // A block denies, whatever the mode of the rule.
    put(server, Wanted { target, limits: vec![limit], modes: Some(false), lasts, label }).await
}

async fn put(server: &ServerArgs, wanted: Wanted) -> Outcome {
    let connection = Connection::open(server).await?;
    let Wanted { target, limits, modes, lasts, label } = wanted;
    let before = connection.get(&target).await?;
    let mut kept = before.clone().unwrap_or_default();
    end_plan(&mut kept);
    if lasts.is_some() && !kept.plan.is_empty() {
        return Err(Failure::Failed(format!(
            "{} has the plan {}, which would end with the limit\n  hint: leave out --for, and take \
             the limit back later",
            target.text(),
            kept.plan
        )));
    }
    let mut labels = kept.labels;
    labels.extend(label.into_iter().map(|Entry { key, value }| (key, value)));
    let mut client = pb::Client {
        domain: target.domain.clone(),
        entries: target.pb_entries(),
        limits,
        shadow_mode: modes.or(kept.shadow_mode),
        quota_mode: modes.or(kept.quota_mode),
        metadata: kept.metadata,
        labels,
        expires_at: lasts.map(time::after),
        etag: kept.etag,
        plan: kept.plan,
        plan_expires_at: kept.plan_expires_at,
        plan_then: kept.plan_then,
        updated_at: None,
    };
    if client.limits.iter().any(|limit| limit.unlimited) {
        without_plan(&mut client);
    }
    let upsert = Action::Upsert(Upsert { clients: vec![client] });
    let answer = connection.manage(upsert, false).await?;
    show::changed(server, &target.text(), before, answer);
    Ok(())
}

/// Leaves out a plan that has ended and that the server has not replaced yet.
fn end_plan(client: &mut pb::Client) {
    let now = time::now();
    let ended = |at: &prost_types::Timestamp| (at.seconds, at.nanos) <= (now.seconds, now.nanos);
    if client.plan_expires_at.as_ref().is_some_and(ended) {
        client.plan = std::mem::take(&mut client.plan_then);
        client.plan_expires_at = None;
    }
}

/// No plan limits a client that is unlimited.
fn without_plan(client: &mut pb::Client) {
    client.plan.clear();
    client.plan_expires_at = None;
    client.plan_then.clear();
}

/// Removes the limits of a client, which keeps its plan.
async fn keep_plan(
    server: &ServerArgs,
    connection: &Connection,
    target: &Target,
    before: pb::Client,
) -> Outcome {
    let limits = Vec::new();
    let mut client = pb::Client { limits, updated_at: None, ..before.clone() };
    end_plan(&mut client);
    let upsert = Action::Upsert(Upsert { clients: vec![client] });
    let answer = connection.manage(upsert, false).await?;
    show::changed(server, &target.text(), Some(before), answer);
    Ok(())
}

/// True if the client has limits of its own beside a plan.
fn is_beside_a_plan(client: &pb::Client) -> bool {
    !client.plan.is_empty() && !client.limits.is_empty()
}

/// Takes back a block; a client with another limit is left alone.
pub(super) async fn unblock(server: &ServerArgs, target: Target) -> Outcome {
    let connection = Connection::open(server).await?;
    let Some(client) = connection.get(&target).await? else {
        return Err(Failure::Failed(format!(
            "{} is not blocked: it has no limit of its own\n  hint: a rule may block it: tollgate admin explain {}",
            target.text(),
            target.text()
        )));
    };
    if !show::is_block(&client) {
        return Err(Failure::Failed(format!(
            "{} is not blocked: its limit is {}\n  hint: to remove that, tollgate admin limit {} none",
            target.text(),
            show::client(&client),
            target.text()
        )));
    }
    if is_beside_a_plan(&client) {
        return keep_plan(server, &connection, &target, client).await;
    }
    delete(server, &connection, &target, client.etag).await
}

/// Removes the limits of a descriptor, whatever they are.
async fn remove(server: &ServerArgs, target: Target) -> Outcome {
    let connection = Connection::open(server).await?;
    let Some(client) = connection.get(&target).await? else {
        let text = format!("{} has no limit of its own: the rule holds", target.text());
        return Err(Failure::Failed(text));
    };
    if is_beside_a_plan(&client) {
        return keep_plan(server, &connection, &target, client).await;
    }
    delete(server, &connection, &target, String::new()).await
}

async fn delete(
    server: &ServerArgs,
    connection: &Connection,
    target: &Target,
    etag: String,
) -> Outcome {
    let delete = Action::Delete(Delete { client: Some(target.name(etag)), ..Delete::default() });
    let answer = connection.manage(delete, false).await?;
    let before = answer.clients.into_iter().next();
    if server.json {
        println!("{}", json!({"client": null, "before": before.map(Client::from)}));
        return Ok(());
    }
    let was = before.map(|before| format!(" (was {})", show::client(&before)));
    println!("{}: by the rule again{}", target.text(), was.unwrap_or_default());
    Ok(())
}

/// Empties the counters of a descriptor.
pub(super) async fn reset(server: &ServerArgs, target: Target) -> Outcome {
    let connection = Connection::open(server).await?;
    let client = Some(target.name(String::new()));
    let reset = Action::ResetUsage(ResetUsage { client, limit: None });
    let answer = connection.manage(reset, false).await?;
    if server.json {
        let (count, warnings) = (answer.counters_reset(), answer.warnings);
        println!("{}", json!({"counters_reset": count, "warnings": warnings}));
        return Ok(());
    }
    show::warn(&answer.warnings);
    let counters = match answer.counters_reset() {
        0 => "nothing was used".to_owned(),
        1 => "1 counter emptied".to_owned(),
        count => format!("{count} counters emptied"),
    };
    println!("{}: {counters}", target.text());
    Ok(())
}

impl Target {
    /// Domain and entries as they are typed.
    pub(super) fn text(&self) -> String {
        format!("{} {}", self.domain, descriptor::text(&self.entries))
    }
}
