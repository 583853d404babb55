//! `GetTop`: the callers that this replica limited most, or decided about most.

use tonic::Status;

use super::convert;
use super::service::Admin;
use super::violations::violation;
use crate::control::registry::Registry;
use crate::edge::pb::tollgate::v1 as pb;
use crate::edge::pb::tollgate::v1::get_top_request::Order;
use crate::limiter::Shared;
use crate::limiter::top::{Ranking, TopCaller, TopOrder, TopQuery};
use crate::store::LimitStore;

/// Callers of an answer without a size.
const PAGE: usize = 100;

/// The most callers of an answer.
const MAX_PAGE: usize = 1_000;

/// Lists callers, those with the highest counts first.
pub(super) fn list<R: Registry, S: LimitStore>(
    admin: &Admin<R, S>,
    request: &pb::GetTopRequest,
) -> Result<pb::GetTopResponse, Status> {
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
            "callers are not ranked: the setting admin.top_callers is 0; set it to 1024 and restart",
        ));
    }
    let order = match Order::try_from(request.order) {
        Ok(Order::Unspecified | Order::Limited) => TopOrder::Limited,
        Ok(Order::Shadowed) => TopOrder::Shadowed,
        Ok(Order::Busiest) => TopOrder::Busiest,
        Err(_) => return Err(violation("order", "expected LIMITED, SHADOWED or BUSIEST")),
    };
    let domain = (!request.domain.is_empty()).then_some(&*request.domain);
    let rule = (!request.rule.is_empty()).then_some(&*request.rule);
    let Ranking { since, until, callers } = shared.top.rank(TopQuery { domain, rule, order });
    Ok(pb::GetTopResponse {
        total: Some(callers.len() as u64),
        rows: callers.iter().take(size).map(|caller| shown(shared, caller)).collect(),
        since: Some(convert::timestamp(since)),
        until: Some(convert::timestamp(until)),
    })
}

fn shown(shared: &Shared, top: &TopCaller) -> pb::get_top_response::Row {
    let caller = &top.caller;
    let name = caller.shown_name(&shared.resolver, &shared.policies.current());
    pb::get_top_response::Row {
        domain: name.domain.to_string(),
        entries: convert::entries(&name.entries),
        count: Some(top.count),
        max_error: Some(top.max_error),
        rule: caller.rule.clone(),
        limit: caller.limit.as_ref().map(convert::reported_limit),
        client: Some(caller.client),
        truncated: Some(caller.truncated),
    }
}
