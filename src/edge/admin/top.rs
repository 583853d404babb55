//! `ListTopCallers`: the callers that this replica denied most.

use tonic::Status;

use super::convert;
use super::service::Admin;
use super::violations::violation;
use crate::control::registry::Registry;
use crate::edge::pb::tollgate::v1 as pb;
use crate::limiter::Shared;
use crate::limiter::top::{Ranking, TopCaller};
use crate::store::LimitStore;

/// Callers of an answer without a size.
const PAGE: usize = 100;

/// The most callers of an answer.
const MAX_PAGE: usize = 1_000;

/// Lists callers, those with the most denials first.
pub(super) fn list<R: Registry, S: LimitStore>(
    admin: &Admin<R, S>,
    request: &pb::ListTopCallersRequest,
) -> Result<pb::ListTopCallersResponse, Status> {
    let size = match request.page_size as usize {
        0 => PAGE,
        size if size > MAX_PAGE => {
            return Err(violation("page_size", format!("found {size}, at most {MAX_PAGE}")));
        }
        size => size,
    };
    let shared = admin.shared();
    if shared.top.is_off() {
        return Err(Status::failed_precondition(
            "callers are not ranked: the setting admin.top_callers is 0; set it to 4096 and restart",
        ));
    }
    let domain = (!request.domain.is_empty()).then_some(&*request.domain);
    let Ranking { since, until, callers } = shared.top.rank(domain, request.shadow);
    Ok(pb::ListTopCallersResponse {
        total: Some(callers.len() as u64),
        callers: callers.iter().take(size).map(|caller| shown(shared, caller)).collect(),
        since: Some(convert::timestamp(since)),
        until: Some(convert::timestamp(until)),
    })
}

fn shown(shared: &Shared, top: &TopCaller) -> pb::list_top_callers_response::Caller {
    let caller = &top.caller;
    // The policies may mark more values as sensitive than when the caller was denied.
    let hidden = shared.resolver.hidden_name(&caller.name, &shared.policies.current());
    let name = hidden.as_ref().unwrap_or(&caller.name);
    pb::list_top_callers_response::Caller {
        domain: name.domain.to_string(),
        entries: convert::entries(&name.entries),
        denials: Some(top.denials),
        max_error: Some(top.max_error),
        rule: caller.rule.clone(),
        limit: caller.limit.as_ref().map(convert::reported_limit),
        client: Some(caller.client),
        truncated: Some(caller.truncated),
    }
}
