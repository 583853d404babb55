//! The connection to the admin listener, and what its errors mean to an operator.

mod plans;

use std::error::Error;
use std::fs;
use std::time::Duration;

use tokio::time::timeout;
use tollgate::edge::admin::pb::client_service_client::ClientServiceClient;
use tollgate::edge::admin::pb::manage_clients_request::{Action, List};
use tollgate::edge::admin::pb::policy_service_client::PolicyServiceClient;
use tollgate::edge::admin::pb::{
    self, ClientName, ManageClientsRequest, ManageClientsResponse, manage_clients_request,
};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};
use tonic_types::StatusExt as _;

use super::{ServerArgs, Target};
use crate::cli::exit::Failure;
use crate::tls_args::cause;

/// The variable that holds the token.
const TOKEN: &str = "TOLLGATE_ADMIN_TOKEN";

/// The largest answer: a page of clients with all the metadata that they may have.
const MAX_ANSWER_BYTES: usize = 256 << 20;

/// Clients of a page.
const PAGE: u32 = 1_000;

/// A connection to one server.
#[derive(Debug)]
pub(super) struct Connection {
    address: String,
    channel: Channel,
    authorization: Option<MetadataValue<Ascii>>,
    timeout: Duration,
}

impl Connection {
    /// Connects.
    pub(super) async fn open(args: &ServerArgs) -> Result<Self, Failure> {
        let authorization = authorization(args)?;
        let address = if args.address.contains("://") {
            args.address.clone()
        } else {
            format!("http://{}", args.address)
        };
        let endpoint = Endpoint::from_shared(address.clone()).map_err(|error| {
            Failure::Line(format!("--address {address}: {error}; write http://HOST:PORT"))
        })?;
        let endpoint = args.tls.apply(endpoint).map_err(Failure::Line)?;
        let away = |cause: String| {
            Failure::Unavailable(format!(
                "cannot reach the admin listener at {address}: {cause}\n  hint: is tollgate running, and is \
                 this its admin.listen? Another address: --address or TOLLGATE_ADMIN_ADDRESS"
            ))
        };
        let channel = match timeout(args.timeout, endpoint.connect()).await {
            Ok(connected) => connected.map_err(|error| away(cause(&error)))?,
            Err(_) => return Err(away(format!("no answer within {}", shown(args.timeout)))),
        };
        Ok(Self { address, channel, authorization, timeout: args.timeout })
    }

    /// Does one thing with clients.
    pub(super) async fn manage(
        &self,
        action: Action,
        validate_only: bool,
    ) -> Result<ManageClientsResponse, Failure> {
        self.try_manage(action, validate_only).await?.map_err(|status| self.failure(&status))
    }

    /// As [`Self::manage`], with the status of a refusal.
    pub(super) async fn try_manage(
        &self,
        action: Action,
        validate_only: bool,
    ) -> Result<Result<ManageClientsResponse, Status>, Failure> {
        let message = ManageClientsRequest { action: Some(action), validate_only };
        let mut service = ClientServiceClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_ANSWER_BYTES);
        self.within(service.manage_clients(self.request(message))).await
    }

    /// The client of that name; none: there is none.
    pub(super) async fn get(&self, target: &Target) -> Result<Option<pb::Client>, Failure> {
        let get = manage_clients_request::Get { client: Some(target.name(String::new())) };
        match self.try_manage(Action::Get(get), false).await? {
            Ok(answer) => Ok(answer.clients.into_iter().next()),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(self.failure(&status)),
        }
    }

    /// The next page of the clients of `domain`, empty for all; `token` is that of the page before.
    pub(super) async fn page(
        &self,
        domain: &str,
        token: String,
    ) -> Result<ManageClientsResponse, Failure> {
        let domain = domain.to_owned();
        let list = List { domain, page_size: PAGE, page_token: token, ..List::default() };
        self.manage(Action::List(list), false).await
    }

    /// The policies that RPCs applied.
    pub(super) async fn policies(&self) -> Result<Vec<pb::Policy>, Failure> {
        let mut service = self.policy_service();
        let answer = self.within(service.list_policies(self.request(pb::ListPoliciesRequest {})));
        Ok(answer.await?.map_err(|status| self.failure(&status))?.policies)
    }

    /// Applies a policy, with the status of a refusal.
    pub(super) async fn apply(
        &self,
        yaml: String,
        validate_only: bool,
    ) -> Result<Result<pb::Policy, Status>, Failure> {
        let message = pb::ApplyPolicyRequest { yaml, etag: String::new(), validate_only };
        let mut service = self.policy_service();
        self.within(service.apply_policy(self.request(message))).await
    }

    /// Sets a mode.
    pub(super) async fn set_mode(
        &self,
        message: pb::SetModeRequest,
    ) -> Result<pb::SetModeResponse, Failure> {
        let mut service = self.policy_service();
        let answer = self.within(service.set_mode(self.request(message))).await?;
        answer.map_err(|status| self.failure(&status))
    }

    /// Turns a rule.
    pub(super) async fn set_scale(
        &self,
        message: pb::SetScaleRequest,
    ) -> Result<pb::SetScaleResponse, Failure> {
        let mut service = self.policy_service();
        let answer = self.within(service.set_scale(self.request(message))).await?;
        answer.map_err(|status| self.failure(&status))
    }

    /// The scales of a domain, or of all.
    pub(super) async fn list_scales(
        &self,
        message: pb::ListScalesRequest,
    ) -> Result<pb::ListScalesResponse, Failure> {
        let mut service = self.policy_service();
        self.of(service.list_scales(self.request(message))).await
    }

    /// Sets the log level of the server.
    pub(super) async fn set_log_level(
        &self,
        message: pb::SetLogLevelRequest,
    ) -> Result<pb::SetLogLevelResponse, Failure> {
        let mut service = self.policy_service();
        let answer = self.within(service.set_log_level(self.request(message))).await?;
        answer.map_err(|status| self.failure(&status))
    }

    /// Explains a request.
    pub(super) async fn explain(
        &self,
        message: pb::ExplainRequest,
    ) -> Result<pb::ExplainResponse, Failure> {
        let mut service = self.policy_service();
        let answer = self.within(service.explain(self.request(message))).await?;
        answer.map_err(|status| self.failure(&status))
    }

    /// The callers that are limited most, or ask most.
    pub(super) async fn top(
        &self,
        message: pb::GetTopRequest,
    ) -> Result<pb::GetTopResponse, Failure> {
        let mut service = self.policy_service();
        let answer = self.within(service.get_top(self.request(message))).await?;
        answer.map_err(|status| self.failure(&status))
    }

    fn policy_service(&self) -> PolicyServiceClient<Channel> {
        PolicyServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(value) = &self.authorization {
            request.metadata_mut().insert("authorization", value.clone());
        }
        request
    }

    /// The answer; the outer error: there is none.
    async fn within<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<Result<T, Status>, Failure> {
        match timeout(self.timeout, call).await {
            Ok(answer) => Ok(answer.map(Response::into_inner)),
            Err(_) => Err(Failure::Unavailable(format!(
                "{} did not answer within {}; a change may have happened\n  hint: `tollgate admin list` or \
                 `explain` shows it; repeating the command is safe; --timeout allows more time",
                self.address,
                shown(self.timeout)
            ))),
        }
    }

    /// The failure of a call that was answered with `status`.
    pub(super) fn failure(&self, status: &Status) -> Failure {
        let (address, message) = (&self.address, status.message());
        match status.code() {
            Code::InvalidArgument => Failure::Failed(format!("refused: {}", violations(status))),
            Code::NotFound | Code::Aborted | Code::FailedPrecondition => {
                Failure::Failed(message.to_owned())
            }
            Code::Unauthenticated | Code::PermissionDenied => Failure::Failed(format!(
                "{address} refuses the token, or asks for one: {message}\n  hint: write the token to a file \
                 and name it with --token-file, or set {TOKEN}"
            )),
            Code::Unavailable => Failure::Unavailable(format!(
                "{address}: {message}{}\n  hint: a change may have happened; repeating the command is safe",
                status.source().map(|error| format!(": {}", cause(error))).unwrap_or_default()
            )),
            // The connection ended: with TLS 1.3 a caller learns that late of a refusal.
            Code::Cancelled | Code::Unknown if status.source().is_some() => {
                Failure::Unavailable(format!(
                    "{address} closed the connection: {}\n  hint: does the listener ask for a \
                     certificate (admin.tls.client_ca_file)? Its log says; give one with --cert-file \
                     and --key-file",
                    status.source().map(cause).unwrap_or_default()
                ))
            }
            Code::Unimplemented => Failure::Failed(format!(
                "{address} serves no administration\n  hint: is this the admin listener (admin.listen, port \
                 8082 by default)?"
            )),
            code => Failure::Failed(format!(
                "{address}: {message} ({code:?})\n  hint: is this the admin listener (admin.listen, port 8082 \
                 by default) of tollgate?"
            )),
        }
    }
}

impl Target {
    /// The name of the client; an empty `etag` asks for none.
    pub(super) fn name(&self, etag: String) -> ClientName {
        ClientName { domain: self.domain.clone(), entries: self.pb_entries(), etag }
    }

    /// The entries in words of the protocol.
    pub(super) fn pb_entries(&self) -> Vec<pb::Entry> {
        let entries = self.entries.iter().cloned();
        entries
            .map(|entry| pb::Entry { key: entry.key, value: entry.value, hashed: false })
            .collect()
    }
}

/// The header, from the file or from the variable.
fn authorization(args: &ServerArgs) -> Result<Option<MetadataValue<Ascii>>, Failure> {
    let (token, origin) = match &args.token_file {
        Some(path) => {
            let origin = format!("--token-file {}", path.display());
            let text = fs::read_to_string(path);
            let text = text.map_err(|error| Failure::Line(format!("{origin}: {error}")))?;
            (text, origin)
        }
        None => match std::env::var(TOKEN) {
            Ok(token) => (token, TOKEN.to_owned()),
            Err(std::env::VarError::NotPresent) => return Ok(None),
            Err(error) => return Err(Failure::Line(format!("{TOKEN}: {error}"))),
        },
    };
    let token = token.trim();
    if token.is_empty() {
        return Err(Failure::Line(format!("{origin} is empty")));
    }
    // Without the text, which is a secret.
    let mut value: MetadataValue<Ascii> = format!("Bearer {token}").parse().map_err(|_| {
        Failure::Line(format!(
            "{origin} holds bytes that a header cannot carry: use printable ASCII"
        ))
    })?;
    value.set_sensitive(true);
    Ok(Some(value))
}

/// The violations of a request with one client, or the message.
fn violations(status: &Status) -> String {
    let Some(bad) = status.get_details_bad_request() else { return status.message().to_owned() };
    if bad.field_violations.is_empty() {
        return status.message().to_owned();
    }
    let line = |violation: &tonic_types::FieldViolation| {
        let field = violation.field.trim_start_matches("upsert.clients[0].");
        format!("{field} {}", violation.description)
    };
    bad.field_violations.iter().map(line).collect::<Vec<_>>().join("\n  ")
}

fn shown(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}
