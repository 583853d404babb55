//! Clients and limits as text for people.

use serde_json::json;
use tollgate::domain::Unit;
use tollgate::edge::admin::pb;
use tollgate::policy::Allowance;

use super::line::Client;
use super::{ServerArgs, time};
use crate::cli::descriptor::{self, Entry};

/// The entries as they are typed.
pub(super) fn descriptor(entries: &[pb::Entry]) -> String {
    let entry = |entry: &pb::Entry| Entry { key: entry.key.clone(), value: entry.value.clone() };
    descriptor::text(&entries.iter().map(entry).collect::<Vec<_>>())
}

/// Limits, joined.
pub(super) fn limits(limits: &[pb::Limit]) -> String {
    limits.iter().map(limit).collect::<Vec<_>>().join(" and ")
}

/// A plan with its limits and the number of its clients.
pub(super) fn plan(plan: &pb::Plan) -> String {
    let clients = count(plan.clients(), "client");
    format!("{} plan {}: {}, {clients}", plan.domain, plan.name, limits(&plan.limits))
}

/// A number of things.
pub(super) fn count(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// Prints what became of a client.
pub(super) fn changed(
    server: &ServerArgs,
    title: &str,
    before: Option<pb::Client>,
    answer: pb::ManageClientsResponse,
) {
    let after = answer.clients.into_iter().next().unwrap_or_default();
    if server.json {
        let before = before.map(Client::from);
        let client = Client::from(after);
        println!("{}", json!({"client": client, "before": before, "warnings": answer.warnings}));
        return;
    }
    warn(&answer.warnings);
    let was = before.map(|before| format!(" (was {})", client(&before)));
    println!("{title}: {}{}", client(&after), was.unwrap_or_default());
}

/// The limits of a client, its plan, its mode and its end.
pub(super) fn client(client: &pb::Client) -> String {
    let mut parts: Vec<String> = client.limits.iter().map(limit).collect();
    if !client.plan.is_empty() {
        parts.push(format!("plan {}", client.plan));
    }
    let mut text = parts.join(" and ");
    if let Some(at) = &client.plan_expires_at {
        let then = if client.plan_then.is_empty() { "no plan" } else { &client.plan_then };
        for part in [" until ", &time::short(at), " then ", then] {
            text.push_str(part);
        }
    }
    let modes = [("shadow", client.shadow_mode), ("quota", client.quota_mode)];
    for (name, _) in modes.iter().filter(|(_, mode)| *mode == Some(true)) {
        text.push_str(", ");
        text.push_str(name);
    }
    if let Some(at) = &client.expires_at {
        text.push_str(" until ");
        text.push_str(&time::short(at));
    }
    text
}

/// A limit with what it sets beside its rate.
pub(super) fn limit(limit: &pb::Limit) -> String {
    let mut text = allowance(limit).to_string();
    let mut add = |set: bool, part: String| {
        if set {
            text.push(' ');
            text.push_str(&part);
        }
    };
    add(limit.burst != 0, format!("burst {}", limit.burst));
    let algorithm = limit.algorithm != 0 && limit.burst == 0;
    add(algorithm, limit.algorithm().as_str_name().to_ascii_lowercase());
    add(limit.slots != 0, format!("slots {}", limit.slots));
    add(limit.charge() == pb::Charge::Always, "charge always".to_owned());
    add(limit.charge() == pb::Charge::Settled, "charge settled".to_owned());
    add(!limit.name.is_empty(), format!("name {}", limit.name));
    text
}

fn allowance(limit: &pb::Limit) -> Allowance {
    if limit.unlimited {
        return Allowance::Unlimited;
    }
    let unit = Unit::from_name(limit.unit().as_str_name()).unwrap_or(Unit::Second);
    Allowance::of(limit.requests_per_unit(), unit, limit.unit_multiplier.max(1))
}

/// True when the client denies every request.
pub(super) fn is_block(client: &pb::Client) -> bool {
    client.limits.iter().any(|limit| allowance(limit) == Allowance::Blocked)
}

/// Prints warnings of the server to standard error.
pub(super) fn warn(warnings: &[String]) {
    for warning in warnings {
        let field = warning.trim_start_matches("upsert.clients[0].");
        let field = field.trim_start_matches("plan.");
        eprintln!("warning: {}", field.trim_start_matches("reset_usage.client."));
    }
}
