//! The checks that `/readyz?verbose` lists: the state of each part, and the next step for a fault.

use super::process::Process;
use crate::control::follower::Freshness;
use crate::edge::http::Check;

/// Every check, in the order of a request's path.
pub(super) fn all(process: &Process) -> Vec<Check> {
    let mut checks = vec![policies(process), store(process)];
    let found = process.inspection.found().into_iter();
    checks.extend(found.map(|finding| Check {
        name: format!("redis {}", finding.check),
        state: finding.fault.map_or_else(|| Ok("ok".to_owned()), Err),
    }));
    checks.push(registry(process));
    checks
}

fn policies(process: &Process) -> Check {
    let snapshot = process.shared.policies.current();
    let (domains, rules) = (snapshot.policies.domains().len(), snapshot.policies.rules().len());
    let state = Ok(format!("domains: {domains}, rules: {rules}"));
    Check { name: "policies".to_owned(), state }
}

fn store(process: &Process) -> Check {
    let name = "store".to_owned();
    let Some(connector) = &process.connector else {
        let text = "memory; every replica counts for itself. redis.url shares counters";
        return Check { name, state: Ok(text.to_owned()) };
    };
    let (connections, up) = process.connections();
    let text = format!("redis {connector}: {up} of {connections} connections are up");
    let state =
        if up == connections { Ok(text) } else { Err(format!("{text}; the log has the reason")) };
    Check { name, state }
}

fn registry(process: &Process) -> Check {
    let state = match process.control.follower().freshness() {
        Freshness::Fresh => {
            Ok(format!("revision {}", process.control.follower().progress().revision))
        }
        Freshness::Stale { age, reason } => Err(format!("as of {age:.0?} ago: {reason}")),
        Freshness::Unread { reason } => Err(format!("not read yet: {reason}")),
    };
    Check { name: "registry".to_owned(), state }
}
