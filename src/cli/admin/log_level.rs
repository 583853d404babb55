//! `tollgate admin log-level`: the level of one replica's log.

use std::time::Duration;

use clap::Args;
use serde_json::json;
use tollgate::edge::admin::pb;

use super::connect::Connection;
use super::{ServerArgs, time};
use crate::cli::exit::{Failure, Outcome};

/// The word for the level of the settings.
const SETTINGS: &str = "settings";

/// `tollgate admin log-level`.
#[derive(Args, Debug)]
pub(super) struct LogLevelArgs {
    /// off, error, warn, info, debug, trace, directives such as `info,tollgate::store=debug`, or
    /// settings = as the settings say
    level: String,
    /// Go back to the level of the settings after this time
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
}

/// Sets the level.
pub(super) async fn run(server: &ServerArgs, args: LogLevelArgs) -> Outcome {
    let LogLevelArgs { level, duration } = args;
    let level = if level == SETTINGS { String::new() } else { level };
    let duration = duration.map(prost_types::Duration::try_from).transpose();
    let duration = duration.map_err(|_| Failure::Line("--for is too long".to_owned()))?;
    let message = pb::SetLogLevelRequest { level, duration };
    let answer = Connection::open(server).await?.set_log_level(message).await?;
    let pb::SetLogLevelResponse { level, previous, until } = &answer;
    if server.json {
        let until = until.as_ref().map(time::text);
        println!("{}", json!({"level": level, "previous": previous, "until": until}));
        return Ok(());
    }
    let until = until.as_ref().map_or(String::new(), |at| format!(" until {}", time::short(at)));
    println!("log level on this replica alone: {level}{until} (before: {previous})");
    Ok(())
}
