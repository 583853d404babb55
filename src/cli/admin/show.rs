//! Clients and limits as text for people.

use tollgate::domain::Unit;
use tollgate::edge::admin::pb;
use tollgate::policy::Allowance;

use super::time;
use crate::cli::descriptor::{self, Entry};

/// The entries as they are typed.
pub(super) fn descriptor(entries: &[pb::Entry]) -> String {
    let entry = |entry: &pb::Entry| Entry { key: entry.key.clone(), value: entry.value.clone() };
    descriptor::text(&entries.iter().map(entry).collect::<Vec<_>>())
}

/// The limits of a client, its mode and its end.
pub(super) fn client(client: &pb::Client) -> String {
    let mut text = client.limits.iter().map(limit).collect::<Vec<_>>().join(" and ");
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
        eprintln!("warning: {}", field.trim_start_matches("reset_usage.client."));
    }
}
