//! The plans of an import: checked before the clients that name them, and written before.

use std::collections::HashMap;

use tollgate::edge::admin::pb;

use super::records::Numbered;
use super::{Connection, Counts, Failure, count};

/// Domain and name of a plan.
type PlanName = (String, String);

/// The plans that the server does not have like this.
pub(super) async fn to_write(
    connection: &Connection,
    wanted: Vec<Numbered<pb::Plan>>,
) -> Result<(Vec<Numbered<pb::Plan>>, Counts), Failure> {
    let mut counts = Counts::default();
    if wanted.is_empty() {
        return Ok((wanted, counts));
    }
    let present = connection.plans("").await?.into_iter().map(|plan| {
        let bare = pb::Plan { etag: String::new(), updated_at: None, clients: None, ..plan };
        (name(&bare), bare)
    });
    let present: HashMap<PlanName, pb::Plan> = present.collect();
    let mut to_write = wanted;
    to_write.retain(|plan| match present.get(&name(&plan.item)) {
        None => count(&mut counts.new),
        Some(there) if *there != plan.item => count(&mut counts.changed),
        Some(_) => !count(&mut counts.unchanged),
    });
    Ok((to_write, counts))
}

/// Checks plans; their faults and warnings, each with its line.
pub(super) async fn check(
    connection: &Connection,
    plans: &[Numbered<pb::Plan>],
) -> Result<(Vec<String>, Vec<String>), Failure> {
    let (mut faults, mut warnings) = (Vec::new(), Vec::new());
    for Numbered { line, item } in plans {
        match connection.put_plan(item.clone(), true).await? {
            Ok(answer) => {
                warnings.extend(answer.warnings.iter().map(|text| format!("line {line}: {text}")));
            }
            Err(status) if status.code() == tonic::Code::InvalidArgument => {
                faults.push(format!("line {line}: {}", status.message()));
            }
            Err(status) => return Err(connection.failure(&status)),
        }
    }
    Ok((faults, warnings))
}

/// Writes plans.
pub(super) async fn write(
    connection: &Connection,
    plans: &[Numbered<pb::Plan>],
) -> Result<(), Failure> {
    for plan in plans {
        let stored = connection.put_plan(plan.item.clone(), false).await?;
        stored.map_err(|status| connection.failure(&status))?;
    }
    Ok(())
}

/// The clients as the server can check them while the plans of this import are not there: with the
/// limits of a plan in its place.
pub(super) fn checkable(
    plans: &[Numbered<pb::Plan>],
    clients: &[Numbered<pb::Client>],
) -> Vec<Numbered<pb::Client>> {
    let by_name: HashMap<PlanName, &[pb::Limit]> =
        plans.iter().map(|plan| (name(&plan.item), &*plan.item.limits)).collect();
    let limits = |domain: &str, plan: &str| by_name.get(&(domain.to_owned(), plan.to_owned()));
    let stand_in = |Numbered { line, item }: &Numbered<pb::Client>| {
        let mut client = item.clone();
        if limits(&client.domain, &client.plan_then).is_some() {
            client.plan_then.clear();
        }
        if let Some(limits) = limits(&client.domain, &client.plan) {
            client.plan.clear();
            client.plan_expires_at = None;
            client.plan_then.clear();
            if client.limits.is_empty() {
                client.limits = limits.to_vec();
            }
        }
        Numbered { line: *line, item: client }
    };
    clients.iter().map(stand_in).collect()
}

fn name(plan: &pb::Plan) -> PlanName {
    (plan.domain.clone(), plan.name.clone())
}
