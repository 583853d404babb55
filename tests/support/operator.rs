//! An operator: calls of the admin listener, with or without a token.

use std::net::SocketAddr;
use std::time::{Duration, Instant, UNIX_EPOCH};

use prost_types::Timestamp;
use tollgate::domain::clock::{Clock as _, SystemClock};
use tollgate::edge::admin::pb::client_service_client::ClientServiceClient;
use tollgate::edge::admin::pb::list_modes_response::Source;
use tollgate::edge::admin::pb::manage_clients_request::{Action, Delete, Get, List, Upsert};
use tollgate::edge::admin::pb::plan_service_client::PlanServiceClient;
use tollgate::edge::admin::pb::policy_service_client::PolicyServiceClient;
use tollgate::edge::admin::pb::{
    self, ApplyPolicyRequest, Client, DeletePolicyRequest, ExplainRequest, ExplainResponse,
    ListModesRequest, ManageClientsRequest, Mode, SetModeRequest, SetScaleRequest,
};
use tollgate::edge::pb::RateLimitRequest;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use super::tollgate::Tollgate;

/// Somebody at the admin listener of one tollgate.
pub struct Operator {
    channel: Channel,
    authorization: Option<String>,
}

impl Operator {
    pub async fn of(tollgate: &Tollgate) -> Self {
        Self::at(tollgate.at.admin).await.unwrap()
    }

    /// At whatever listens there, if something does.
    pub async fn at(address: SocketAddr) -> Result<Self, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        Ok(Self { channel: endpoint.connect().await?, authorization: None })
    }

    /// Sends this with every call, such as `Bearer demo`.
    pub fn with(self, authorization: &str) -> Self {
        Self { authorization: Some(authorization.to_owned()), ..self }
    }

    fn call<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(value) = &self.authorization {
            request.metadata_mut().insert("authorization", value.parse().unwrap());
        }
        request
    }

    pub async fn manage(&self, action: Action) -> Result<pb::ManageClientsResponse, Status> {
        self.send(action, false).await
    }

    /// As if it were done.
    pub async fn validate(&self, action: Action) -> Result<pb::ManageClientsResponse, Status> {
        self.send(action, true).await
    }

    async fn send(
        &self,
        action: Action,
        validate_only: bool,
    ) -> Result<pb::ManageClientsResponse, Status> {
        let message = ManageClientsRequest { action: Some(action), validate_only };
        let mut service = ClientServiceClient::new(self.channel.clone());
        Ok(service.manage_clients(self.call(message)).await?.into_inner())
    }

    pub async fn upsert(&self, client: Client) -> Result<Client, Status> {
        let answer = self.put(vec![client]).await?;
        Ok(answer.clients[0].clone())
    }

    /// All of them or none.
    pub async fn put(&self, clients: Vec<Client>) -> Result<pb::ManageClientsResponse, Status> {
        self.manage(Action::Upsert(Upsert { clients })).await
    }

    /// The client of this name, as the registry has it.
    pub async fn get(&self, client: Client) -> Result<Client, Status> {
        let answer = self.manage(Action::Get(Get { client: Some(name(client)) })).await?;
        Ok(answer.clients[0].clone())
    }

    /// Deletes the client of this name, whatever its etag.
    pub async fn delete(&self, client: Client) -> Result<pb::ManageClientsResponse, Status> {
        self.manage(Action::Delete(Delete { client: Some(name(client)), ..Delete::default() }))
            .await
    }

    /// Every client, on one page, and the revision that it shows.
    pub async fn list(&self) -> Result<(Vec<Client>, u64), Status> {
        let list = List { page_size: 1_000, ..List::default() };
        let answer = self.manage(Action::List(list)).await?;
        assert_eq!(answer.next_page_token, "", "more than a page");
        let revision = answer.revision();
        Ok((answer.clients, revision))
    }

    /// For one domain, or with an empty one for all.
    pub async fn set_mode(&self, domain: &str, mode: Mode) -> Mode {
        let message = SetModeRequest { domain: domain.to_owned(), mode: mode.into() };
        let mut service = PolicyServiceClient::new(self.channel.clone());
        service.set_mode(self.call(message)).await.unwrap().into_inner().mode()
    }

    /// The modes in force: domain, mode and source.
    pub async fn list_modes(&self) -> Vec<(String, Mode, Source)> {
        let mut service = PolicyServiceClient::new(self.channel.clone());
        let answer = service.list_modes(self.call(ListModesRequest {})).await.unwrap();
        let modes = answer.into_inner().modes.into_iter();
        modes.map(|own| (own.domain.clone(), own.mode(), own.source())).collect()
    }

    /// The service of policies, without a token.
    pub fn policies(&self) -> PolicyServiceClient<Channel> {
        PolicyServiceClient::new(self.channel.clone())
    }

    /// The service of plans, without a token.
    pub fn plans(&self) -> PlanServiceClient<Channel> {
        PlanServiceClient::new(self.channel.clone())
    }

    /// Stores a plan with these limits.
    pub async fn put_plan(&self, domain: &str, name: &str, limits: Vec<pb::Limit>) -> pb::Plan {
        let (domain, name) = (domain.to_owned(), name.to_owned());
        let plan = Some(pb::Plan { domain, name, limits, ..pb::Plan::default() });
        let message = pb::UpsertPlanRequest { plan, validate_only: false };
        let answer = self.plans().upsert_plan(self.call(message)).await.unwrap().into_inner();
        answer.plan.unwrap()
    }

    pub async fn explain(&self, request: RateLimitRequest) -> ExplainResponse {
        let message = ExplainRequest { request: Some(request) };
        let mut service = PolicyServiceClient::new(self.channel.clone());
        service.explain(self.call(message)).await.unwrap().into_inner()
    }

    pub async fn apply(&self, yaml: &str) -> pb::Policy {
        let message = ApplyPolicyRequest { yaml: yaml.to_owned(), ..Default::default() };
        let mut service = PolicyServiceClient::new(self.channel.clone());
        service.apply_policy(self.call(message)).await.unwrap().into_inner()
    }

    /// Turns a rule to this part of its limits.
    pub async fn turn(&self, domain: &str, rule: &str, percent: f64) {
        let (domain, rule) = (domain.to_owned(), rule.to_owned());
        let message = SetScaleRequest { domain, rule, percent, ..Default::default() };
        let mut service = PolicyServiceClient::new(self.channel.clone());
        service.set_scale(self.call(message)).await.unwrap();
    }

    pub async fn delete_policy(&self, domain: &str) {
        let message = DeletePolicyRequest { domain: domain.to_owned(), ..Default::default() };
        let mut service = PolicyServiceClient::new(self.channel.clone());
        service.delete_policy(self.call(message)).await.unwrap();
    }
}

/// A client of one entry with one limit.
pub fn client(domain: &str, (key, value): (&str, &str), limit: pb::Limit) -> Client {
    let entries = vec![pb::Entry { key: key.to_owned(), value: value.to_owned(), hashed: false }];
    Client { domain: domain.to_owned(), entries, limits: vec![limit], ..Client::default() }
}

/// A client `k=VALUE` of the domain `d`, with so many requests a day.
pub fn daily(value: &str, requests_per_unit: u32) -> Client {
    client("d", ("k", value), limit(requests_per_unit, pb::Unit::Day))
}

/// What names the client, without its etag.
pub fn name(Client { domain, entries, .. }: Client) -> pb::ClientName {
    pb::ClientName { domain, entries, etag: String::new() }
}

/// The client with an end so long from now, and when that is.
pub fn ending_in(rest: Duration, client: Client) -> (Client, Instant) {
    let wall = Duration::from_micros(SystemClock::start().now().as_micros());
    let expires_at = Some(Timestamp::from(UNIX_EPOCH + wall + rest));
    (Client { expires_at, ..client }, Instant::now() + rest)
}

/// So many hits per unit.
pub fn limit(requests_per_unit: u32, unit: pb::Unit) -> pb::Limit {
    let requests_per_unit = Some(requests_per_unit);
    pb::Limit { requests_per_unit, unit: unit.into(), ..pb::Limit::default() }
}
