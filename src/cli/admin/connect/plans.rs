//! Calls about plans.

use tollgate::edge::admin::pb;
use tollgate::edge::admin::pb::manage_clients_request::{Action, SetPlan};
use tollgate::edge::admin::pb::plan_service_client::PlanServiceClient;
use tonic::Status;
use tonic::transport::Channel;
use tonic::{Code, Response};

use super::{Connection, MAX_ANSWER_BYTES, PAGE};
use crate::cli::exit::Failure;

impl Connection {
    /// Every plan of `domain`, empty for all.
    pub(in crate::cli::admin) async fn plans(
        &self,
        domain: &str,
    ) -> Result<Vec<pb::Plan>, Failure> {
        let (mut plans, mut page_token) = (Vec::new(), String::new());
        loop {
            let list =
                pb::ListPlansRequest { domain: domain.to_owned(), page_size: PAGE, page_token };
            let mut service = self.plan_service();
            let page = self.of(service.list_plans(self.request(list))).await?;
            plans.extend(page.plans);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(plans);
            }
        }
    }

    /// The plan of that name; none: there is none.
    pub(in crate::cli::admin) async fn plan(
        &self,
        domain: &str,
        name: &str,
    ) -> Result<Option<pb::Plan>, Failure> {
        let get = pb::GetPlanRequest { domain: domain.to_owned(), name: name.to_owned() };
        let mut service = self.plan_service();
        match self.within(service.get_plan(self.request(get))).await? {
            Ok(plan) => Ok(Some(plan)),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(self.failure(&status)),
        }
    }

    /// Stores a plan, with the status of a refusal.
    pub(in crate::cli::admin) async fn put_plan(
        &self,
        plan: pb::Plan,
        validate_only: bool,
    ) -> Result<Result<pb::UpsertPlanResponse, Status>, Failure> {
        let message = pb::UpsertPlanRequest { plan: Some(plan), validate_only };
        let mut service = self.plan_service();
        self.within(service.upsert_plan(self.request(message))).await
    }

    /// Deletes a plan.
    pub(in crate::cli::admin) async fn delete_plan(
        &self,
        message: pb::DeletePlanRequest,
    ) -> Result<pb::DeletePlanResponse, Failure> {
        let mut service = self.plan_service();
        self.of(service.delete_plan(self.request(message))).await
    }

    /// Gives clients a plan, call by call; the number of clients that it changes. A dry run makes
    /// the first call alone, and returns true where more clients follow.
    pub(in crate::cli::admin) async fn set_plan(
        &self,
        mut message: SetPlan,
        dry_run: bool,
    ) -> Result<(u64, bool), Failure> {
        let mut changed = 0;
        loop {
            let answer = self.manage(Action::SetPlan(message.clone()), dry_run).await?;
            changed += u64::from(answer.changed());
            let more = !answer.next_page_token.is_empty();
            if dry_run || !more {
                return Ok((changed, more));
            }
            message.page_token = answer.next_page_token;
        }
    }

    fn plan_service(&self) -> PlanServiceClient<Channel> {
        PlanServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    pub(in crate::cli::admin) async fn of<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Failure> {
        self.within(call).await?.map_err(|status| self.failure(&status))
    }
}
