//! `tollgate.v1.PlanService`: limits that many clients share, one RPC for each action.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::clients::{expected, stale};
use super::convert;
use super::identity::Who;
use super::page::PageToken;
use super::service::{Admin, corrupt, failed};
use super::validate::Validator;
use super::violations::{Violations, violation};
use crate::control::audit::{self, Attempt};
use crate::control::registry::{Change, Expect, Registry, RegistryError};
use crate::edge::pb::tollgate::v1 as pb;
use crate::edge::pb::tollgate::v1::plan_service_server::PlanService;
use crate::limits::plans::{PlanPage, Plans as PlanTable};
use crate::limits::{Plan, PlanKey};
use crate::store::LimitStore;

/// The most plans of all domains: each new one copies the table of plans.
const MAX_PLANS: usize = 10_000;

/// The most plans on a page.
const MAX_PAGE: usize = 1_000;

/// Plans on a page without a size.
const PAGE: usize = 100;

/// The service.
#[derive(Debug)]
pub(super) struct Plans<R, S>(pub(super) Arc<Admin<R, S>>);

#[tonic::async_trait]
impl<R: Registry, S: LimitStore> PlanService for Plans<R, S> {
    async fn upsert_plan(
        &self,
        request: Request<pb::UpsertPlanRequest>,
    ) -> Result<Response<pb::UpsertPlanResponse>, Status> {
        let who = Who::of(&request)?;
        Ok(Response::new(self.upsert(&who, request.into_inner()).await?))
    }

    async fn get_plan(
        &self,
        request: Request<pb::GetPlanRequest>,
    ) -> Result<Response<pb::Plan>, Status> {
        let pb::GetPlanRequest { domain, name } = request.into_inner();
        let (key, _) = self.named(&domain, &name, "")?;
        let plan = self.stored(&key).await?.ok_or_else(|| missing(&key))?;
        Ok(Response::new(self.shown(&plan)))
    }

    async fn list_plans(
        &self,
        request: Request<pb::ListPlansRequest>,
    ) -> Result<Response<pb::ListPlansResponse>, Status> {
        Ok(Response::new(self.list(request.get_ref()).await?))
    }

    async fn delete_plan(
        &self,
        request: Request<pb::DeletePlanRequest>,
    ) -> Result<Response<pb::DeletePlanResponse>, Status> {
        let who = Who::of(&request)?;
        Ok(Response::new(self.delete(&who, &request.into_inner()).await?))
    }
}

impl<R: Registry, S: LimitStore> Plans<R, S> {
    async fn upsert(
        &self,
        who: &Who,
        request: pb::UpsertPlanRequest,
    ) -> Result<pb::UpsertPlanResponse, Status> {
        let message = request.plan.ok_or_else(|| violation("plan", "is required"))?;
        let mut warnings = without_requests(&message);
        let (plan, expect) = {
            let mut validator = self.validator();
            let valid = validator.plan(message, "plan");
            let valid = valid.filter(|_| validator.violations.is_empty());
            valid.ok_or_else(|| validator.violations.into_status())?
        };
        warnings.extend(self.warning(&plan));
        let found = self.0.read(&plan.key().record_key()).await?;
        expected(expect, found.as_ref(), "plan.etag")?;
        let stored = found.and_then(|found| Plan::from_record(&found.value, found.revision).ok());
        self.check_room(stored.is_none())?;
        let unchanged = stored.filter(|stored| stored.says_the_same_as(&plan));
        let mut answer = pb::UpsertPlanResponse {
            plan: Some(self.shown(unchanged.as_ref().unwrap_or(&plan))),
            warnings,
            revision: Some(self.0.revision()),
            unchanged: unchanged.is_some(),
        };
        if unchanged.is_none() && !request.validate_only {
            let revision = self.store(who, &plan, expect).await?;
            answer.plan = Some(self.shown(&Plan { revision, ..plan }));
            answer.revision = Some(revision);
        }
        Ok(answer)
    }

    /// Stores a plan, and returns the revision of the write.
    async fn store(&self, who: &Who, plan: &Plan, expect: Expect) -> Result<u64, Status> {
        let key = plan.key();
        let (title, after) = (audit::plan_title(&key), audit::plan_state(plan));
        let attempt = Attempt::by(who).and("upsert_plan", title, after, audit::plan_record);
        let value = Some(plan.to_record().map_err(|error| corrupt(&error))?);
        let change = Change { key: key.record_key(), expect, value };
        match self.0.write(attempt, vec![change]).await {
            Ok(written) => Ok(written.mark.revision),
            Err(RegistryError::Conflict { found, .. }) => Err(stale(found, "plan.etag")),
            Err(error) => Err(failed(&error)),
        }
    }

    fn check_room(&self, is_new: bool) -> Result<(), Status> {
        if is_new && self.table().len() >= MAX_PLANS {
            let text = format!("there are {MAX_PLANS} plans, which is the most; delete some");
            return Err(Status::resource_exhausted(text));
        }
        Ok(())
    }

    async fn list(&self, list: &pb::ListPlansRequest) -> Result<pb::ListPlansResponse, Status> {
        let token = token(list)?;
        let stale = self.0.read_once().await?;
        // Read before the page, so that the page shows at least this.
        let followed = self.0.revision();
        let revision = token.as_ref().map_or(followed, |token| token.revision);
        if followed < revision {
            return Err(Status::unavailable(format!(
                "page_token: this replica has followed the registry to revision {followed} and the \
                 first page showed {revision}; try again, or leave it out to begin again"
            )));
        }
        let size = if list.page_size == 0 { PAGE } else { list.page_size as usize };
        let domain = (!list.domain.is_empty()).then_some(&*list.domain);
        let after = token.map(|token| token.after);
        let PlanPage { plans, more } = self.table().page(domain, after.as_ref(), size);
        let last = plans.last().filter(|_| more);
        let next = last.map(|last| PageToken { revision, after: last.plan.key() }.write());
        Ok(pb::ListPlansResponse {
            plans: plans.iter().map(convert::listed_plan).collect(),
            next_page_token: next.unwrap_or_default(),
            warnings: stale.into_iter().collect(),
            revision: Some(followed),
        })
    }

    async fn delete(
        &self,
        who: &Who,
        request: &pb::DeletePlanRequest,
    ) -> Result<pb::DeletePlanResponse, Status> {
        let (key, expect) = self.named(&request.domain, &request.name, &request.etag)?;
        let found = self.0.read(&key.record_key()).await?.ok_or_else(|| missing(&key))?;
        expected(expect, Some(&found), "etag")?;
        // The count of this replica is that of the registry only when it has caught up.
        self.0.read_once().await?;
        self.0.caught_up().await?;
        let clients = self.table().clients_of(&key);
        if clients > 0 && !request.force {
            return Err(in_use(&key, clients));
        }
        let mut revision = self.0.revision();
        if !request.validate_only {
            let expect = if expect == Expect::Anything { Expect::Present } else { expect };
            let change = Change { key: key.record_key(), expect, value: None };
            let title = audit::plan_title(&key);
            let attempt =
                Attempt::by(who).and("delete_plan", title, audit::NOTHING, audit::plan_record);
            revision = match self.0.write(attempt, vec![change]).await {
                Ok(written) => written.mark.revision,
                Err(RegistryError::Conflict { found: None, .. }) => return Err(missing(&key)),
                Err(RegistryError::Conflict { found, .. }) => return Err(stale(found, "etag")),
                Err(error) => return Err(failed(&error)),
            };
        }
        Ok(pb::DeletePlanResponse { clients: clients as u64, revision: Some(revision) })
    }

    async fn stored(&self, key: &PlanKey) -> Result<Option<Plan>, Status> {
        let found = self.0.read(&key.record_key()).await?;
        let plan = found.map(|found| Plan::from_record(&found.value, found.revision));
        plan.transpose().map_err(|error| corrupt(&error))
    }

    fn shown(&self, plan: &Plan) -> pb::Plan {
        convert::plan(plan, self.table().clients_of(&plan.key()))
    }

    fn table(&self) -> &PlanTable {
        self.0.shared().resolver.clients.directory().plans()
    }

    fn validator(&self) -> Validator<'_> {
        let (bounds, now) = (&self.0.shared().bounds, self.0.now());
        Validator { bounds, now, violations: Violations::default() }
    }

    /// A plan and an etag as fields of a request.
    fn named(&self, domain: &str, name: &str, etag: &str) -> Result<(PlanKey, Expect), Status> {
        let mut validator = self.validator();
        let (key, expect) = (validator.plan_key(domain, name, ""), validator.etag(etag, "etag"));
        key.zip(expect).ok_or_else(|| validator.violations.into_status())
    }

    /// A warning about a domain that nobody else names.
    fn warning(&self, plan: &Plan) -> Option<String> {
        (!self.0.shared().knows(plan.domain.as_bytes()))
            .then(|| "plan.domain: no policy and no client names it".to_owned())
    }
}

/// The token of a sound request.
fn token(list: &pb::ListPlansRequest) -> Result<Option<PageToken<PlanKey>>, Status> {
    let mut violations = Violations::default();
    if list.page_size as usize > MAX_PAGE {
        violations.add("page_size", format!("found {}, at most {MAX_PAGE}", list.page_size));
    }
    let token = (!list.page_token.is_empty()).then(|| PageToken::read(&list.page_token));
    let of_domain =
        |token: &PageToken<PlanKey>| list.domain.is_empty() || *token.after.domain == *list.domain;
    if token.as_ref().is_some_and(|token| !token.as_ref().is_some_and(of_domain)) {
        let expected = "is no next_page_token of this list; leave it out to begin again";
        violations.add("page_token", expected);
    }
    violations.check()?;
    Ok(token.flatten())
}

/// Warnings of limits that block because their requests were left out.
fn without_requests(plan: &pb::Plan) -> Vec<String> {
    let limits = plan.limits.iter().enumerate();
    let blind = limits.filter(|(_, limit)| limit.requests_per_unit.is_none() && !limit.unlimited);
    let warning = |(i, _)| {
        format!(
            "plan.limits[{i}].requests_per_unit: is not set, so the limit is 0 and blocks the \
             clients; set it, or unlimited"
        )
    };
    blind.map(warning).collect()
}

fn missing(key: &PlanKey) -> Status {
    Status::not_found(super::clients::no_such_plan(key))
}

fn in_use(key: &PlanKey, clients: usize) -> Status {
    let (name, domain) = (&key.name, &key.domain);
    let (clients, them) = match clients {
        1 => ("1 client".to_owned(), "it"),
        many => (format!("{many} clients"), "them"),
    };
    Status::failed_precondition(format!(
        "the plan {name:?} of the domain {domain:?} has {clients}; give {them} another plan first, \
         or delete it with force: own limits or the rule limit {them} then"
    ))
}
