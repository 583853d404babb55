//! `tollgate admin`: the RPCs of the admin listener, one command each.

mod connect;
mod explain;
mod export;
mod import;
mod limit;
mod line;
mod list;
mod log_level;
mod mode;
mod plan;
mod scale;
mod show;
mod time;
mod top;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};

use super::descriptor::Entry;
use super::exit::Outcome;
use crate::tls_args::TlsArgs;

/// The end of the help.
pub(super) const AFTER: &str = "\
Examples:
  tollgate admin limit edge user=alice 500/hour --burst 50 --for 1h
  tollgate admin limit edge api_key=acme 10/second 1000/day
  tollgate admin limit edge user=alice none            back to the rule
  tollgate admin block edge remote_address=203.0.113.7
  tollgate admin unblock edge remote_address=203.0.113.7
  tollgate admin reset edge user=alice                 empty the counters
  tollgate admin plan set edge gold 100/second 1000000/day
  tollgate admin plan give edge gold api_key=acme
  tollgate admin plan give edge gold --from silver     all clients of a plan
  tollgate admin scale set edge remote_address 50% --for 15m
  tollgate admin mode shadow --domain edge             decide and report, deny nothing
  tollgate admin mode settings --domain edge           back to the settings
  tollgate admin log-level debug --for 10m             of one replica
  tollgate admin explain edge user=alice --hits 3      charges nothing
  tollgate admin top edge                              who is denied most
  tollgate admin list edge
  tollgate admin export > clients.jsonl
  tollgate admin import --dry-run < clients.jsonl

A descriptor of several entries is written in order: edge endpoint=search api_key=acme.

Exit codes: 0 done, 1 refused or not found, 2 the command line is wrong, 69 no answer: a change may have happened.";

/// `tollgate admin`.
#[derive(Args, Debug)]
pub(crate) struct AdminArgs {
    #[command(flatten)]
    server: ServerArgs,
    #[command(subcommand)]
    command: AdminCommand,
}

/// The server, and how to speak with it.
#[derive(Args, Debug)]
struct ServerArgs {
    /// Admin listener
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "TOLLGATE_ADMIN_ADDRESS",
        default_value = "http://127.0.0.1:8082"
    )]
    address: String,
    /// File that holds the token; without it, the variable `TOLLGATE_ADMIN_TOKEN` does
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    tls: TlsArgs,
    /// Time for each call
    #[arg(
        long,
        global = true,
        value_name = "TIME",
        default_value = "10s",
        value_parser = humantime::parse_duration
    )]
    timeout: Duration,
    /// Print JSON, an object a line
    #[arg(long, global = true)]
    json: bool,
}

/// A descriptor of a domain.
#[derive(Args, Clone, Debug)]
struct Target {
    /// Domain of the descriptor
    domain: String,
    /// Entries of the descriptor, in order
    #[arg(required = true, value_name = "KEY=VALUE")]
    entries: Vec<Entry>,
}

#[derive(Debug, Subcommand)]
enum AdminCommand {
    /// Give a descriptor limits of its own, in place of those of the rule
    Limit(limit::LimitArgs),
    /// Deny every request of a descriptor
    Block(limit::BlockArgs),
    /// Take back a block
    Unblock(Target),
    /// Empty the counters of a descriptor that has limits of its own
    Reset(Target),
    /// Limits that many clients share
    Plan(plan::PlanArgs),
    /// Parts of limits to which rules are turned
    Scale(scale::ScaleArgs),
    /// Set the kill switch
    Mode(mode::ModeArgs),
    /// Set the log level of one replica, for a time or until it restarts
    LogLevel(log_level::LogLevelArgs),
    /// Show how a request would be decided; charges nothing
    Explain(explain::ExplainArgs),
    /// Show the callers that are denied most now, on this replica
    Top(top::TopArgs),
    /// List the descriptors that have limits of their own
    List(list::ListArgs),
    /// Write every client, plan and policy to standard output, a line of JSON each
    Export(export::ExportArgs),
    /// Read lines of `export` and write those that differ
    Import(import::ImportArgs),
}

/// Runs a command against a server.
pub(crate) fn run(AdminArgs { server, command }: AdminArgs) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    runtime.block_on(async {
        match command {
            AdminCommand::Limit(args) => limit::limit(&server, args).await,
            AdminCommand::Block(args) => limit::block(&server, args).await,
            AdminCommand::Unblock(target) => limit::unblock(&server, target).await,
            AdminCommand::Reset(target) => limit::reset(&server, target).await,
            AdminCommand::Plan(args) => plan::run(&server, args).await,
            AdminCommand::Scale(args) => scale::run(&server, args).await,
            AdminCommand::Mode(args) => mode::run(&server, args).await,
            AdminCommand::LogLevel(args) => log_level::run(&server, args).await,
            AdminCommand::Explain(args) => explain::run(&server, args).await,
            AdminCommand::Top(args) => top::run(&server, args).await,
            AdminCommand::List(args) => list::run(&server, args).await,
            AdminCommand::Export(args) => export::run(&server, args).await,
            AdminCommand::Import(args) => import::run(&server, &args).await,
        }
    })
}
