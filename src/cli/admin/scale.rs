//! `tollgate admin scale`: the part of its limits to which a rule is turned.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tollgate::edge::admin::pb;

use super::connect::Connection;
use super::{ServerArgs, show, time};
use crate::cli::exit::Outcome;

/// `tollgate admin scale`.
#[derive(Args, Debug)]
pub(super) struct ScaleArgs {
    #[command(subcommand)]
    command: ScaleCommand,
}

#[derive(Debug, Subcommand)]
enum ScaleCommand {
    /// Turn a rule to a part of its limits
    Set(SetArgs),
    /// Take back what was set: all of the limits, or what the controller of the rule says
    Clear {
        /// Domain of the rule
        domain: String,
        /// Rule as metrics name it, such as endpoint=orders/method
        rule: String,
    },
    /// List what is set, and what controllers say
    List {
        /// Only this domain
        domain: Option<String>,
    },
}

#[derive(Args, Debug)]
struct SetArgs {
    /// Domain of the rule
    domain: String,
    /// Rule as metrics name it, such as endpoint=orders/method
    rule: String,
    /// Part of the limits, such as 50% or 12.5%
    #[arg(value_parser = percent)]
    percent: f64,
    /// Time after which it ends, such as 15m
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    lasts: Option<Duration>,
    /// Reason, for those who list it
    #[arg(long, default_value = "")]
    reason: String,
    /// Allow more than 100%, up to 1000%
    #[arg(long)]
    above_limits: bool,
}

fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text);
    let percent = number.parse().ok().filter(|percent: &f64| *percent >= 0.1);
    percent.ok_or_else(|| "write a part such as 50% or 12.5%, at least 0.1%".to_owned())
}

/// Runs a command about scales.
pub(super) async fn run(server: &ServerArgs, args: ScaleArgs) -> Outcome {
    let message = match args.command {
        ScaleCommand::List { domain } => return list(server, domain.unwrap_or_default()).await,
        ScaleCommand::Clear { domain, rule } => {
            pb::SetScaleRequest { domain, rule, ..pb::SetScaleRequest::default() }
        }
        ScaleCommand::Set(args) => pb::SetScaleRequest {
            domain: args.domain,
            rule: args.rule,
            percent: args.percent,
            expires_at: args.lasts.map(time::after),
            reason: args.reason,
            etag: String::new(),
            above_limits: args.above_limits,
        },
    };
    let (domain, rule) = (message.domain.clone(), message.rule.clone());
    let answer = Connection::open(server).await?.set_scale(message).await?;
    if server.json {
        let scale = answer.scale.as_ref().map(shown);
        println!("{}", json!({"scale": scale, "percent_in_force": answer.percent_in_force}));
        return Ok(());
    }
    let until = answer.scale.and_then(|scale| scale.expires_at);
    let until = until.map_or(String::new(), |at| format!(" until {}", time::short(&at)));
    println!("{domain} {rule}: {}%{until}", answer.percent_in_force);
    Ok(())
}

async fn list(server: &ServerArgs, domain: String) -> Outcome {
    let request = pb::ListScalesRequest { domain };
    let answer = Connection::open(server).await?.list_scales(request).await?;
    show::warn(&answer.warnings);
    for scale in &answer.scales {
        if server.json {
            println!("{}", shown(scale));
            continue;
        }
        let (domain, rule, percent) = (&scale.domain, &scale.rule, scale.percent);
        let by = source(scale);
        let ends = scale.expires_at.as_ref();
        let until = ends.map_or(String::new(), |at| format!(", until {}", time::short(at)));
        let idle = if scale.in_force() { "" } else { ", not in force" };
        let unknown = if scale.rule_known() { "" } else { ", no such rule" };
        let reason = &scale.reason;
        let reason = if reason.is_empty() { String::new() } else { format!("  ({reason})") };
        println!("{domain} {rule}: {percent}% by {by}{until}{idle}{unknown}{reason}");
    }
    if !server.json {
        println!("{}", show::count(answer.scales.len() as u64, "scale"));
    }
    Ok(())
}

fn source(scale: &pb::Scale) -> String {
    scale.source().as_str_name().to_ascii_lowercase()
}

fn shown(scale: &pb::Scale) -> Value {
    json!({
        "domain": scale.domain,
        "rule": scale.rule,
        "percent": scale.percent,
        "source": source(scale),
        "expires_at": scale.expires_at.as_ref().map(time::text),
        "reason": scale.reason,
        "etag": scale.etag,
        "in_force": scale.in_force(),
        "rule_known": scale.rule_known(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_percentages() {
        assert_eq!(percent("50%"), Ok(50.0));
        assert_eq!(percent("12.5"), Ok(12.5));
        for bad in ["0%", "half", "-5%", "NaN", ""] {
            assert!(percent(bad).is_err(), "{bad}");
        }
    }
}
