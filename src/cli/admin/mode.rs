//! `tollgate admin mode`: the kill switch.

use clap::{Args, ValueEnum};
use serde_json::json;
use tollgate::edge::admin::pb;

use super::ServerArgs;
use super::connect::Connection;
use crate::cli::exit::Outcome;

/// `tollgate admin mode`.
#[derive(Args, Debug)]
pub(super) struct ModeArgs {
    /// The mode
    #[arg(value_enum)]
    mode: ModeWord,
    /// Only this domain; without it, every domain that has no mode of its own
    #[arg(long)]
    domain: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ModeWord {
    /// Limits deny
    Enforce,
    /// Limits are decided, charged and reported; nothing is denied
    Shadow,
    /// Nothing is looked at; everything passes
    Off,
    /// As the settings say; forgets what was set here
    Settings,
}

/// Sets the mode.
pub(super) async fn run(server: &ServerArgs, args: ModeArgs) -> Outcome {
    let mode = match args.mode {
        ModeWord::Enforce => pb::Mode::Enforce,
        ModeWord::Shadow => pb::Mode::Shadow,
        ModeWord::Off => pb::Mode::Off,
        ModeWord::Settings => pb::Mode::Unspecified,
    };
    let domain = args.domain.unwrap_or_default();
    let connection = Connection::open(server).await?;
    let message = pb::SetModeRequest { domain: domain.clone(), mode: mode.into() };
    let answer = connection.set_mode(message).await?;
    let in_force = answer.mode().as_str_name().to_ascii_lowercase();
    if server.json {
        println!(
            "{}",
            json!({"domain": domain, "mode": in_force, "domain_known": answer.domain_known()})
        );
        return Ok(());
    }
    if !answer.domain_known() {
        eprintln!("warning: no policy and no client names the domain {domain}");
    }
    let what = if domain.is_empty() { "all domains" } else { &domain };
    println!("{what}: {in_force}");
    Ok(())
}
