//! `tollgate admin top`: the callers that are denied most now, on one replica.

use std::io::{self, Write as _};

use clap::Args;
use serde_json::{Value, json};
use tollgate::edge::admin::pb::list_top_callers_response::Caller;
use tollgate::edge::admin::pb::{self, ListTopCallersResponse};
use tollgate::telemetry::escape::escape;

use super::connect::Connection;
use super::line::Entry;
use super::{ServerArgs, show, time};
use crate::cli::exit::Outcome;

/// `tollgate admin top`.
#[derive(Args, Debug)]
pub(super) struct TopArgs {
    /// Only this domain
    domain: Option<String>,
    /// Most callers
    #[arg(
        long,
        value_name = "N",
        default_value_t = 20,
        value_parser = clap::value_parser!(u32).range(1..=1_000)
    )]
    limit: u32,
    /// Show the callers that shadow mode let pass, instead of those that were denied
    #[arg(long)]
    shadow: bool,
}

/// The head of the table.
const HEAD: [&str; 4] = ["DENIALS", "LIMIT", "RULE", "DOMAIN AND DESCRIPTOR"];

/// Ranks callers.
pub(super) async fn run(server: &ServerArgs, args: TopArgs) -> Outcome {
    let TopArgs { domain, limit, shadow } = args;
    let domain = domain.unwrap_or_default();
    let message = pb::ListTopCallersRequest { domain, page_size: limit, shadow };
    let answer = Connection::open(server).await?.top_callers(message).await?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    if server.json {
        for caller in &answer.callers {
            writeln!(out, "{}", json(caller, shadow, &answer))?;
        }
    } else {
        for line in table(&answer.callers) {
            writeln!(out, "{line}")?;
        }
        writeln!(out, "{}", summary(shadow, &answer))?;
    }
    out.flush()?;
    Ok(())
}

/// The lines of the table, with as much room for each column as it needs.
fn table(callers: &[Caller]) -> Vec<String> {
    if callers.is_empty() {
        return Vec::new();
    }
    let rows: Vec<_> =
        [HEAD.map(str::to_owned)].into_iter().chain(callers.iter().map(row)).collect();
    let width = |column: fn(&[String; 4]) -> &String| {
        rows.iter().map(|row| column(row).chars().count()).max().unwrap_or_default()
    };
    let widths = [width(|row| &row[0]), width(|row| &row[1]), width(|row| &row[2])];
    let line = |[denials, limit, rule, descriptor]: &[String; 4]| {
        let [first, second, third] = widths;
        format!("{denials:>first$}  {limit:<second$}  {rule:<third$}  {descriptor}")
    };
    rows.iter().map(line).collect()
}

fn row(caller: &Caller) -> [String; 4] {
    let (denials, error) = (caller.denials(), caller.max_error());
    let denials =
        if error == 0 { denials.to_string() } else { format!("{denials}..{}", denials + error) };
    let limit = caller.limit.as_ref().map(show::limit).unwrap_or_default();
    [denials, limit, rule(caller), descriptor(caller)]
}

/// The rule, or in parentheses what limits in its place, as in the labels of metrics.
fn rule(caller: &Caller) -> String {
    if caller.client() {
        "(client)".to_owned()
    } else if caller.rule.is_empty() {
        "(override)".to_owned()
    } else {
        escape(caller.rule.as_bytes()).to_string()
    }
}

/// Domain and entries as other commands take them, and in a comment what keeps them from it.
fn descriptor(caller: &Caller) -> String {
    let mut text =
        format!("{} {}", escape(caller.domain.as_bytes()), show::descriptor(&caller.entries));
    if caller.entries.iter().any(|entry| entry.hashed) {
        text.push_str("  # hashed: a sensitive value");
    }
    if caller.truncated() {
        text.push_str("  # truncated");
    }
    text
}

/// The subject of the counts.
fn summary(shadow: bool, answer: &ListTopCallersResponse) -> String {
    let what = if shadow { "let pass by shadow mode" } else { "denied" };
    let at = |at: &Option<prost_types::Timestamp>| at.as_ref().map(time::short).unwrap_or_default();
    let span = format!("from {} to {} on this replica", at(&answer.since), at(&answer.until));
    match (answer.callers.len() as u64, answer.total()) {
        (_, 0) => format!("no callers {what} {span}"),
        (_, 1) => format!("1 caller {what} {span}"),
        (listed, total) if listed == total => format!("{total} callers {what} {span}"),
        (listed, total) => format!("{listed} of {total} callers {what} {span}"),
    }
}

fn json(caller: &Caller, shadow: bool, answer: &ListTopCallersResponse) -> Value {
    let at = |at: &Option<prost_types::Timestamp>| at.as_ref().map(time::text);
    json!({
        "domain": caller.domain,
        "entries": caller.entries.iter().cloned().map(Entry::from).collect::<Vec<_>>(),
        "denials": caller.denials(),
        "max_error": caller.max_error(),
        "rule": caller.rule,
        "limit": caller.limit.as_ref().map(show::limit),
        "client": caller.client(),
        "truncated": caller.truncated(),
        "shadow": shadow,
        "since": at(&answer.since),
        "until": at(&answer.until),
    })
}
