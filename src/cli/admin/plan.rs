//! `tollgate admin plan`: limits that many clients share, and who has them.
//!
//! A new limit of a plan keeps its labels and its metadata. The change names the etag that was
//! read, so that a concurrent change is not lost.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;
use tollgate::edge::admin::pb;
use tollgate::edge::admin::pb::manage_clients_request::{Action, SetPlan, Upsert};
use tollgate::policy::Allowance;

use super::connect::Connection;
use super::limit::RateArgs;
use super::line::{Line, Plan};
use super::{ServerArgs, Target, show, time};
use crate::cli::descriptor::Entry;
use crate::cli::exit::{Failure, Outcome};

/// `tollgate admin plan`.
#[derive(Args, Debug)]
pub(super) struct PlanArgs {
    #[command(subcommand)]
    command: PlanCommand,
}

#[derive(Debug, Subcommand)]
enum PlanCommand {
    /// Make a plan, or change the limits of all its clients at once
    Set(SetArgs),
    /// List the plans, with the number of their clients
    List {
        /// Only this domain
        domain: Option<String>,
    },
    /// Give a descriptor a plan, or many clients at once
    Give(GiveArgs),
    /// Delete a plan
    Delete(DeleteArgs),
}

#[derive(Args, Debug)]
struct SetArgs {
    /// Domain of the plan
    domain: String,
    /// Name of the plan
    name: String,
    /// Limits of each of its clients: 500/hour, 100/5minutes, unlimited
    #[arg(required = true, value_name = "RATE")]
    rates: Vec<Allowance>,
    #[command(flatten)]
    rate: RateArgs,
    /// A label for operators; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<Entry>,
}

#[derive(Args, Debug)]
struct GiveArgs {
    /// Domain of the plan
    domain: String,
    /// Name of the plan
    plan: String,
    /// Entries of a descriptor, in order; without them, --label, --from or --all choose clients
    #[arg(value_name = "KEY=VALUE", conflicts_with_all = ["label", "from", "all"])]
    entries: Vec<Entry>,
    /// Only clients with this label; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<Entry>,
    /// Only clients that have this plan now
    #[arg(long, value_name = "PLAN")]
    from: Option<String>,
    /// Every client of the domain
    #[arg(long, conflicts_with_all = ["label", "from"])]
    all: bool,
    /// Time after which the plan ends, such as 30d
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    lasts: Option<Duration>,
    /// Plan after that time; without it, none
    #[arg(long, value_name = "PLAN", requires = "lasts")]
    then: Option<String>,
    /// Show how many clients would get it, and change nothing
    #[arg(long, conflicts_with = "entries")]
    dry_run: bool,
}

#[derive(Args, Debug)]
struct DeleteArgs {
    /// Domain of the plan
    domain: String,
    /// Name of the plan
    name: String,
    /// Delete it although clients have it: their own limits or the rule hold then
    #[arg(long)]
    force: bool,
}

/// Runs a command about plans.
pub(super) async fn run(server: &ServerArgs, args: PlanArgs) -> Outcome {
    match args.command {
        PlanCommand::Set(args) => set(server, args).await,
        PlanCommand::List { domain } => list(server, &domain.unwrap_or_default()).await,
        PlanCommand::Give(args) if args.entries.is_empty() => give_many(server, args).await,
        PlanCommand::Give(args) => give(server, args).await,
        PlanCommand::Delete(args) => delete(server, args).await,
    }
}

async fn set(server: &ServerArgs, args: SetArgs) -> Outcome {
    let limits = args.rates.iter().map(|allowance| args.rate.limit(*allowance));
    let limits = limits.collect::<Result<_, _>>()?;
    let connection = Connection::open(server).await?;
    let before = connection.plan(&args.domain, &args.name).await?;
    let kept = before.clone().unwrap_or_default();
    let mut labels = kept.labels;
    labels.extend(args.label.into_iter().map(|Entry { key, value }| (key, value)));
    let (domain, name) = (args.domain, args.name);
    let (metadata, etag) = (kept.metadata, kept.etag);
    let plan =
        pb::Plan { domain, name, limits, metadata, labels, etag, updated_at: None, clients: None };
    let answer = connection.put_plan(plan, false).await?;
    let answer = answer.map_err(|status| connection.failure(&status))?;
    let plan = answer.plan.unwrap_or_default();
    if server.json {
        let before = before.map(Plan::from);
        let plan = Plan::from(plan);
        println!("{}", json!({"plan": plan, "before": before, "warnings": answer.warnings}));
        return Ok(());
    }
    show::warn(&answer.warnings);
    let was = before.map(|before| format!(" (was {})", show::limits(&before.limits)));
    let text = show::plan(&plan);
    println!("{text}{}", was.unwrap_or_default());
    Ok(())
}

async fn list(server: &ServerArgs, domain: &str) -> Outcome {
    let plans = Connection::open(server).await?.plans(domain).await?;
    let count = plans.len();
    for plan in plans {
        if server.json {
            println!("{}", serde_json::to_string(&Line::Plan(plan.into()))?);
        } else {
            println!("{}", show::plan(&plan));
        }
    }
    if !server.json {
        println!("{}", show::count(count as u64, "plan"));
    }
    Ok(())
}

/// Gives one descriptor the plan, whether it is a client or not.
async fn give(server: &ServerArgs, args: GiveArgs) -> Outcome {
    let target = Target { domain: args.domain, entries: args.entries };
    let connection = Connection::open(server).await?;
    let before = connection.get(&target).await?;
    let kept = before.clone().unwrap_or_else(|| pb::Client {
        domain: target.domain.clone(),
        entries: target.pb_entries(),
        ..pb::Client::default()
    });
    let client = pb::Client {
        plan: args.plan,
        plan_expires_at: args.lasts.map(time::after),
        plan_then: args.then.unwrap_or_default(),
        limits: kept.limits.into_iter().filter(|limit| !limit.unlimited).collect(),
        updated_at: None,
        entries: target.pb_entries(),
        ..kept
    };
    let answer = connection.manage(Action::Upsert(Upsert { clients: vec![client] }), false).await?;
    show::changed(server, &target.text(), before, answer);
    Ok(())
}

/// Gives the plan to the clients that the filters choose.
async fn give_many(server: &ServerArgs, args: GiveArgs) -> Outcome {
    if args.label.is_empty() && args.from.is_none() && !args.all {
        let text = "name a descriptor, or choose clients by --label, --from or --all";
        return Err(Failure::Line(text.to_owned()));
    }
    let message = SetPlan {
        domain: args.domain.clone(),
        labels: args.label.into_iter().map(|Entry { key, value }| (key, value)).collect(),
        from_plan: args.from.unwrap_or_default(),
        plan: args.plan.clone(),
        plan_expires_at: args.lasts.map(time::after),
        plan_then: args.then.unwrap_or_default(),
        ..SetPlan::default()
    };
    let connection = Connection::open(server).await?;
    let (changed, more) = connection.set_plan(message, args.dry_run).await?;
    if server.json {
        println!("{}", json!({"changed": changed, "more": more, "dry_run": args.dry_run}));
        return Ok(());
    }
    let clients = show::count(changed, "client");
    let than = if more { "more than " } else { "" };
    println!("{} plan {}: {than}{clients} changed", args.domain, args.plan);
    if args.dry_run {
        println!("dry run: nothing was written");
    }
    Ok(())
}

async fn delete(server: &ServerArgs, args: DeleteArgs) -> Outcome {
    let DeleteArgs { domain, name, force } = args;
    let message = pb::DeletePlanRequest {
        domain: domain.clone(),
        name: name.clone(),
        force,
        ..pb::DeletePlanRequest::default()
    };
    let answer = Connection::open(server).await?.delete_plan(message).await?;
    if server.json {
        println!("{}", json!({"plan": null, "clients": answer.clients}));
        return Ok(());
    }
    let left = match answer.clients {
        0 => String::new(),
        many => format!("; {} without a plan", show::count(many, "client")),
    };
    println!("{domain} plan {name}: deleted{left}");
    Ok(())
}
