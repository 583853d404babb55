//! `tollgate admin top`: the callers that are limited most now, or ask most, on one replica.

use std::io::{self, Write as _};

use clap::Args;
use serde_json::{Value, json};
use tollgate::edge::admin::pb::get_top_request::Order;
use tollgate::edge::admin::pb::get_top_response::Row;
use tollgate::edge::admin::pb::{self, GetTopResponse};
use tollgate::telemetry::escape::escape;
use tollgate::telemetry::metrics::LimitOf;

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
    #[arg(long, conflicts_with = "busiest")]
    shadow: bool,
    /// Show the callers that ask most, denied or not
    #[arg(long)]
    busiest: bool,
    /// Only this rule, as the table names it
    #[arg(long)]
    rule: Option<String>,
}

/// Ranks callers.
pub(super) async fn run(server: &ServerArgs, args: TopArgs) -> Outcome {
    let TopArgs { domain, limit, shadow, busiest, rule } = args;
    let order = match (shadow, busiest) {
        (true, _) => Order::Shadowed,
        (_, true) => Order::Busiest,
        _ => Order::Limited,
    };
    let (domain, rule) = (domain.unwrap_or_default(), rule.unwrap_or_default());
    let message = pb::GetTopRequest { domain, page_size: limit, order: order.into(), rule };
    let answer = Connection::open(server).await?.top(message).await?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    if server.json {
        for caller in &answer.rows {
            writeln!(out, "{}", json(caller, order, &answer))?;
        }
    } else {
        for line in table(order, &answer.rows) {
            writeln!(out, "{line}")?;
        }
        writeln!(out, "{}", summary(order, &answer))?;
    }
    out.flush()?;
    Ok(())
}

/// The lines of the table, with as much room for each column as it needs.
fn table(order: Order, callers: &[Row]) -> Vec<String> {
    if callers.is_empty() {
        return Vec::new();
    }
    let rows: Vec<_> =
        [head(order).map(str::to_owned)].into_iter().chain(callers.iter().map(row)).collect();
    let width = |column: fn(&[String; 4]) -> &String| {
        rows.iter().map(|row| column(row).chars().count()).max().unwrap_or_default()
    };
    let widths = [width(|row| &row[0]), width(|row| &row[1]), width(|row| &row[2])];
    let line = |[count, limit, rule, descriptor]: &[String; 4]| {
        let [first, second, third] = widths;
        format!("{count:>first$}  {limit:<second$}  {rule:<third$}  {descriptor}")
    };
    rows.iter().map(line).collect()
}

/// The head of the table.
const fn head(order: Order) -> [&'static str; 4] {
    let count = match order {
        Order::Busiest => "DECISIONS",
        Order::Unspecified | Order::Limited | Order::Shadowed => "DENIALS",
    };
    [count, "LIMIT", "RULE", "DOMAIN AND DESCRIPTOR"]
}

fn row(caller: &Row) -> [String; 4] {
    let (count, error) = (caller.count(), caller.max_error());
    let count = if error == 0 { count.to_string() } else { format!("{count}..{}", count + error) };
    let limit = caller.limit.as_ref().map(show::limit).unwrap_or_default();
    [count, limit, rule(caller), descriptor(caller)]
}

/// The rule, or in parentheses what limits in its place, as in the labels of metrics.
fn rule(caller: &Row) -> String {
    if caller.client() {
        LimitOf::CLIENT.to_owned()
    } else if caller.rule.is_empty() {
        LimitOf::OVERRIDE.to_owned()
    } else {
        escape(caller.rule.as_bytes()).to_string()
    }
}

/// Domain and entries as other commands take them, and in a comment what keeps them from it.
fn descriptor(caller: &Row) -> String {
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
fn summary(order: Order, answer: &GetTopResponse) -> String {
    let what = match order {
        Order::Shadowed => "let pass by shadow mode",
        Order::Busiest => "decided",
        Order::Unspecified | Order::Limited => "denied",
    };
    let at = |at: &Option<prost_types::Timestamp>| at.as_ref().map(time::short).unwrap_or_default();
    let span = format!("from {} to {} on this replica", at(&answer.since), at(&answer.until));
    match (answer.rows.len() as u64, answer.total()) {
        (_, 0) => format!("no callers {what} {span}"),
        (_, 1) => format!("1 caller {what} {span}"),
        (listed, total) if listed == total => format!("{total} callers {what} {span}"),
        (listed, total) => format!("{listed} of {total} callers {what} {span}"),
    }
}

fn json(caller: &Row, order: Order, answer: &GetTopResponse) -> Value {
    let at = |at: &Option<prost_types::Timestamp>| at.as_ref().map(time::text);
    json!({
        "domain": caller.domain,
        "entries": caller.entries.iter().cloned().map(Entry::from).collect::<Vec<_>>(),
        "count": caller.count(),
        "max_error": caller.max_error(),
        "rule": caller.rule,
        "limit": caller.limit.as_ref().map(show::limit),
        "client": caller.client(),
        "truncated": caller.truncated(),
        "order": order.as_str_name(),
        "since": at(&answer.since),
        "until": at(&answer.until),
    })
}
