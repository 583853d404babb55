//! `tollgate admin export`: every policy that RPCs applied, then every plan, then every client, a
//! line of JSON each.
//!
//! Policies are in order of domain, plans in order of domain and name, clients in order of domain
//! and entries.

use std::io::{self, Write as _};

use clap::Args;

use super::ServerArgs;
use super::connect::Connection;
use super::line::Line;
use crate::cli::exit::Outcome;

/// `tollgate admin export`.
#[derive(Args, Debug)]
pub(super) struct ExportArgs {
    /// Only this domain
    domain: Option<String>,
}

/// Writes the lines to standard output.
pub(super) async fn run(server: &ServerArgs, args: ExportArgs) -> Outcome {
    let domain = args.domain.unwrap_or_default();
    let connection = Connection::open(server).await?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    for policy in connection.policies().await? {
        if domain.is_empty() || policy.domain == domain {
            writeln!(out, "{}", serde_json::to_string(&Line::Policy(policy.into()))?)?;
        }
    }
    for plan in connection.plans(&domain).await? {
        writeln!(out, "{}", serde_json::to_string(&Line::Plan(plan.into()))?)?;
    }
    let mut token = String::new();
    loop {
        let page = connection.page(&domain, token).await?;
        for client in page.clients {
            writeln!(out, "{}", serde_json::to_string(&Line::Client(client.into()))?)?;
        }
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    out.flush()?;
    Ok(())
}
