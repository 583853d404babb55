//! An operator: calls of the admin listener, with or without a token.

use std::time::{Duration, Instant, UNIX_EPOCH};

use prost_types::Timestamp;
use tollgate::admin::pb::client_service_client::ClientServiceClient;
use tollgate::admin::pb::manage_clients_request::{Action, Delete, Upsert};
use tollgate::admin::pb::policy_service_client::PolicyServiceClient;
use tollgate::admin::pb::{
    self, ApplyPolicyRequest, Client, DeletePolicyRequest, ManageClientsRequest, Mode,
    SetModeRequest,
};
use tollgate::domain::clock::{Clock as _, SystemClock};
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
        let endpoint = Endpoint::from_shared(format!("http://{}", tollgate.at.admin)).unwrap();
        Self { channel: endpoint.connect().await.unwrap(), authorization: None }
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
        let answer = self.manage(Action::Upsert(Upsert { clients: vec![client] })).await?;
        Ok(answer.clients[0].clone())
    }

    /// Deletes the client of this name, whatever its etag.
    pub async fn delete(&self, client: Client) {
        let Client { domain, entries, .. } = client;
        let client = Some(pb::ClientName { domain, entries, etag: String::new() });
        self.manage(Action::Delete(Delete { client })).await.unwrap();
    }

    /// For one domain, or with an empty one for all.
    pub async fn set_mode(&self, domain: &str, mode: Mode) -> Mode {
        let message = SetModeRequest { domain: domain.to_owned(), mode: mode.into() };
        let mut service = PolicyServiceClient::new(self.channel.clone());
        service.set_mode(self.call(message)).await.unwrap().into_inner().mode()
    }

    pub async fn apply(&self, yaml: &str) -> pb::Policy {
        let message = ApplyPolicyRequest { yaml: yaml.to_owned(), ..Default::default() };
        let mut service = PolicyServiceClient::new(self.channel.clone());
        service.apply_policy(self.call(message)).await.unwrap().into_inner()
    }

    pub async fn delete_policy(&self, domain: &str) {
        let message = DeletePolicyRequest { domain: domain.to_owned(), ..Default::default() };
        let mut service = PolicyServiceClient::new(self.channel.clone());
        service.delete_policy(self.call(message)).await.unwrap();
    }
}

/// A client of one entry with one limit.
pub fn client(domain: &str, (key, value): (&str, &str), limit: pb::Limit) -> Client {
    let entries = vec![pb::Entry { key: key.to_owned(), value: value.to_owned() }];
    Client { domain: domain.to_owned(), entries, limits: vec![limit], ..Client::default() }
}

/// The client with an end so long from now, and when that is.
pub fn ending_in(rest: Duration, client: Client) -> (Client, Instant) {
    let wall = Duration::from_micros(SystemClock::start().now().as_micros());
    let expires_at = Some(Timestamp::from(UNIX_EPOCH + wall + rest));
    (Client { expires_at, ..client }, Instant::now() + rest)
}

/// So many hits per unit.
pub fn limit(requests_per_unit: u32, unit: pb::Unit) -> pb::Limit {
    pb::Limit { requests_per_unit, unit: unit.into(), ..pb::Limit::default() }
}
