//! `tollgate admin import`: writes the lines of `export` that differ from what the server has.
//!
//! All lines are read, and the server checks all of them, before the first is written. Clients are
//! written in batches, each of which is stored as a whole or not at all. A second import of the
//! same lines continues where the first one stopped. Records that the lines do not name stay.

mod plans;
mod records;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use prost::Message as _;
use serde::Serialize;
use serde_json::json;
use tollgate::edge::admin::pb;
use tollgate::edge::admin::pb::manage_clients_request::{Action, Upsert};
use tonic::Status;
use tonic_types::StatusExt as _;

use self::records::{Name, Numbered, name, read};
use super::connect::Connection;
use super::line::Policy;
use super::{ServerArgs, time};
use crate::cli::exit::{Failure, Outcome};

/// Clients of a batch: the most that the server takes.
const BATCH: usize = 1_000;

/// Bytes of a batch: half of what the server takes.
const BATCH_BYTES: usize = 8 << 20;

/// The most faults and warnings that are shown.
const SHOWN: usize = 20;

/// `tollgate admin import`.
#[derive(Args, Debug)]
pub(super) struct ImportArgs {
    /// Lines of `export`; - reads standard input
    #[arg(value_name = "FILE", default_value = "-")]
    file: PathBuf,
    /// Check everything and write nothing
    #[arg(long)]
    dry_run: bool,
}

/// Numbers of records, by what an import does with them.
#[derive(Debug, Default, Serialize)]
struct Counts {
    new: usize,
    changed: usize,
    unchanged: usize,
    expired: usize,
}

/// Reads the lines, then checks and writes them.
pub(super) async fn run(server: &ServerArgs, args: &ImportArgs) -> Outcome {
    let records = read(&args.file)?;
    let connection = Connection::open(server).await?;
    let (policies, of_policies) = policies_to_write(&connection, records.policies).await?;
    let (plans, of_plans) = plans::to_write(&connection, records.plans).await?;
    let (clients, of_clients) = clients_to_write(&connection, records.clients).await?;
    let mut faults = Vec::new();
    let mut warnings = Vec::new();
    for policy in &policies {
        match connection.apply(policy.item.yaml.clone(), true).await? {
            Ok(answer) => warnings.extend(about(policy.line, answer)),
            Err(status) => faults.push(fault_of_policy(&connection, policy.line, &status)?),
        }
    }
    let (of_bad_plans, about_plans) = plans::check(&connection, &plans).await?;
    faults.extend(of_bad_plans);
    warnings.extend(about_plans);
    for batch in batches(&plans::checkable(&plans, &clients)) {
        match connection.try_manage(upsert(batch), true).await? {
            Ok(answer) => warnings.extend(answer.warnings.iter().map(|text| numbered(batch, text))),
            Err(status) => faults.extend(faults_of_clients(&connection, batch, &status)?),
        }
    }
    if !faults.is_empty() {
        return Err(refused(&faults));
    }
    if !server.json {
        eprint!("{}", some_of(&warnings, "warning: ", "warnings"));
    }
    if !args.dry_run {
        write(&connection, &policies, &plans, &clients).await?;
    }
    let (dry_run, json) = (args.dry_run, server.json);
    if json {
        let report = json!({
            "dry_run": dry_run, "policies": of_policies, "plans": of_plans, "clients": of_clients,
            "warnings": warnings,
        });
        println!("{report}");
        return Ok(());
    }
    println!("policies: {}", of_policies.text());
    if !of_plans.is_none() {
        println!("plans: {}", of_plans.text());
    }
    println!("clients: {}", of_clients.text());
    if dry_run {
        println!("dry run: nothing was written");
    }
    Ok(())
}

impl Counts {
    /// True if no line has such a record.
    fn is_none(&self) -> bool {
        self.new + self.changed + self.unchanged + self.expired == 0
    }

    fn text(&self) -> String {
        let Self { new, changed, unchanged, expired } = self;
        let expired = match expired {
            0 => String::new(),
            expired => format!(", {expired} expired and left out"),
        };
        format!("{new} new, {changed} changed, {unchanged} unchanged{expired}")
    }
}

fn refused(faults: &[String]) -> Failure {
    let shown = some_of(faults, "", "faults");
    Failure::Failed(format!("nothing was written\n{}", shown.trim_end()))
}

/// The first of many lines, and how many more there are.
fn some_of(lines: &[String], label: &str, noun: &str) -> String {
    let mut text = String::new();
    for line in lines.iter().take(SHOWN) {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{label}{line}");
    }
    if let Some(more @ 1..) = lines.len().checked_sub(SHOWN) {
        let _ = writeln!(text, "{more} more {noun}");
    }
    text
}

/// The policies that the server does not have like this.
async fn policies_to_write(
    connection: &Connection,
    wanted: Vec<Numbered<Policy>>,
) -> Result<(Vec<Numbered<Policy>>, Counts), Failure> {
    let mut counts = Counts::default();
    if wanted.is_empty() {
        return Ok((wanted, counts));
    }
    let present = connection.policies().await?.into_iter();
    let present: HashMap<String, String> =
        present.map(|policy| (policy.domain, policy.yaml)).collect();
    let mut to_write = wanted;
    to_write.retain(|policy| match present.get(&policy.item.domain) {
        None => count(&mut counts.new),
        Some(yaml) if *yaml != policy.item.yaml => count(&mut counts.changed),
        Some(_) => !count(&mut counts.unchanged),
    });
    Ok((to_write, counts))
}

/// The clients that have not expired and that the server does not have like this.
async fn clients_to_write(
    connection: &Connection,
    wanted: Vec<Numbered<pb::Client>>,
) -> Result<(Vec<Numbered<pb::Client>>, Counts), Failure> {
    let mut counts = Counts::default();
    let now = time::now();
    let mut to_write = wanted;
    to_write.retain(|client| {
        let at = client.item.expires_at.as_ref();
        let expired = at.is_some_and(|at| (at.seconds, at.nanos) <= (now.seconds, now.nanos));
        !(expired && count(&mut counts.expired))
    });
    let unchanged = unchanged(connection, &to_write, &mut counts).await?;
    let mut unchanged = unchanged.into_iter();
    to_write.retain(|_| !unchanged.next().unwrap_or_default());
    Ok((to_write, counts))
}

/// For each of the clients whether the server has it like this.
async fn unchanged(
    connection: &Connection,
    wanted: &[Numbered<pb::Client>],
    counts: &mut Counts,
) -> Result<Vec<bool>, Failure> {
    let by_name: HashMap<Name, usize> =
        wanted.iter().enumerate().map(|(i, client)| (name(&client.item), i)).collect();
    let mut domains: Vec<&str> = wanted.iter().map(|client| &*client.item.domain).collect();
    domains.sort_unstable();
    domains.dedup();
    let mut same = vec![false; wanted.len()];
    // An empty domain would list all of them; the server refuses it with its field.
    for domain in domains.into_iter().filter(|domain| !domain.is_empty()) {
        let mut token = String::new();
        loop {
            let page = connection.page(domain, token).await?;
            for client in page.clients {
                let Some(&i) = by_name.get(&name(&client)) else { continue };
                let (Some(wanted), Some(same)) = (wanted.get(i), same.get_mut(i)) else { continue };
                *same =
                    pb::Client { etag: String::new(), updated_at: None, ..client } == wanted.item;
                count(if *same { &mut counts.unchanged } else { &mut counts.changed });
            }
            token = page.next_page_token;
            if token.is_empty() {
                break;
            }
        }
    }
    counts.new = wanted.len() - counts.changed - counts.unchanged;
    Ok(same)
}

/// Counts one more; true.
fn count(counter: &mut usize) -> bool {
    *counter += 1;
    true
}

/// Parts of a size that the server takes.
fn batches(clients: &[Numbered<pb::Client>]) -> impl Iterator<Item = &[Numbered<pb::Client>]> {
    let mut rest = clients;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |client: &&Numbered<pb::Client>| {
            bytes += client.item.encoded_len();
            bytes <= BATCH_BYTES
        };
        // At least one: what is too large alone is for the server to refuse.
        let len = rest.iter().take(BATCH).take_while(fits).count().max(1);
        let (batch, after) = rest.split_at_checked(len)?;
        rest = after;
        Some(batch)
    })
}

fn upsert(batch: &[Numbered<pb::Client>]) -> Action {
    Action::Upsert(Upsert { clients: batch.iter().map(|client| client.item.clone()).collect() })
}

/// A text of the server about a client of `batch`, with the line in place of the index.
fn numbered(batch: &[Numbered<pb::Client>], text: &str) -> String {
    let parts = text.strip_prefix("upsert.clients[").and_then(|rest| rest.split_once(']'));
    let line = parts.and_then(|(i, _)| batch.get(i.parse::<usize>().ok()?)).map(|c| c.line);
    match (line, parts) {
        (Some(line), Some((_, rest))) => {
            format!("line {line}: {}", rest.trim_start_matches(['.', ' ', ':']))
        }
        _ => text.to_owned(),
    }
}

/// The violations with their lines.
///
/// # Errors
/// A status that is not about clients.
fn faults_of_clients(
    connection: &Connection,
    batch: &[Numbered<pb::Client>],
    status: &Status,
) -> Result<Vec<String>, Failure> {
    let bad = status.get_details_bad_request().map(|bad| bad.field_violations);
    let violations = bad.filter(|violations| !violations.is_empty());
    let violations = violations.ok_or_else(|| connection.failure(status))?;
    let fault = |violation: &tonic_types::FieldViolation| {
        numbered(batch, &format!("{} {}", violation.field, violation.description))
    };
    Ok(violations.iter().map(fault).collect())
}

/// The faults of a policy with its line.
///
/// # Errors
/// A status that is not about the policy.
fn fault_of_policy(
    connection: &Connection,
    line: usize,
    status: &Status,
) -> Result<String, Failure> {
    if status.code() == tonic::Code::InvalidArgument {
        return Ok(format!("line {line}: {}", status.message()));
    }
    Err(connection.failure(status))
}

fn about(line: usize, policy: pb::Policy) -> impl Iterator<Item = String> {
    let shadowed = policy.shadowed_by_file().then(|| {
        format!("line {line}: a file defines the domain {}, so the policy waits", policy.domain)
    });
    let warnings = policy.warnings.into_iter().map(move |text| format!("line {line}: {text}"));
    shadowed.into_iter().chain(warnings)
}

async fn write(
    connection: &Connection,
    policies: &[Numbered<Policy>],
    plans: &[Numbered<pb::Plan>],
    clients: &[Numbered<pb::Client>],
) -> Outcome {
    for policy in policies {
        let applied = connection.apply(policy.item.yaml.clone(), false).await?;
        applied.map_err(|status| connection.failure(&status))?;
    }
    plans::write(connection, plans).await?;
    let mut written = 0;
    for batch in batches(clients) {
        connection
            .manage(upsert(batch), false)
            .await
            .map_err(|failure| interrupted(failure, written, clients.len()))?;
        written += batch.len();
    }
    Ok(())
}

fn interrupted(failure: Failure, written: usize, all: usize) -> Failure {
    let more = format!(
        "\n  {written} of {all} clients are written; import the same lines again to go on with the rest"
    );
    match failure {
        Failure::Failed(text) => Failure::Failed(text + &more),
        Failure::Unavailable(text) => Failure::Unavailable(text + &more),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(value: usize) -> Numbered<pb::Client> {
        let entries =
            vec![pb::Entry { key: "k".to_owned(), value: value.to_string(), hashed: false }];
        Numbered {
            line: 2 * value,
            item: pb::Client { domain: "d".to_owned(), entries, ..pb::Client::default() },
        }
    }

    #[test]
    fn batches_hold_all_clients_and_each_fits() {
        let clients: Vec<_> = (0..2_500).map(client).collect();
        let sizes: Vec<_> = batches(&clients).map(<[_]>::len).collect();
        assert_eq!(sizes, [1_000, 1_000, 500]);
        assert_eq!(batches(&[]).count(), 0);
        let mut large: Vec<_> = (0..3).map(client).collect();
        for client in &mut large {
            client.item.domain = "d".repeat(BATCH_BYTES - 100);
        }
        assert_eq!(batches(&large).map(<[_]>::len).collect::<Vec<_>>(), [1, 1, 1]);
    }

    #[test]
    fn index_of_the_server_becomes_the_line_of_the_file() {
        let batch: Vec<_> = (5..8).map(client).collect();
        let text =
            numbered(&batch, "upsert.clients[1].limits[0].burst needs algorithm TOKEN_BUCKET");
        assert_eq!(text, "line 12: limits[0].burst needs algorithm TOKEN_BUCKET");
        assert_eq!(numbered(&batch, "upsert.clients[9]: x"), "upsert.clients[9]: x");
    }
}
