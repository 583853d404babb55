//! `tollgate.v1.PolicyService`: whole domains at run time; the kill switch, explanations and the
//! rank of callers are beside it.

use std::collections::BTreeSet;
use std::sync::Arc;

use tonic::{Request, Response, Status};

mod versions;

use self::versions::Kept;
use super::clients::stale;
use super::identity::Who;
use super::service::Admin;
use super::validate::Validator;
use super::violations::{Violations, violation};
use super::watch::Watched;
use super::{convert, explain, log_level, mode, scale, top, watch};
use crate::control::layered::{Checked, Offer, Origin};
use crate::control::record::{StoredPolicy, policy_key};
use crate::control::registry::{Expect, Registry};
use crate::edge::pb::tollgate::v1 as pb;
use crate::edge::pb::tollgate::v1::policy_service_server::PolicyService;
use crate::limiter::key::OPEN_SECRETS;
use crate::policy::{Faults, Warning};
use crate::store::LimitStore;

/// The name of the text in faults: the field that it came in.
const FIELD: &str = "yaml";

/// The longest message, in characters: it travels in a header, whose size callers bound.
const LONGEST_MESSAGE: usize = 2_048;

/// The service.
#[derive(Debug)]
pub(super) struct Policies<R, S>(pub(super) Arc<Admin<R, S>>);

#[tonic::async_trait]
impl<R: Registry, S: LimitStore> PolicyService for Policies<R, S> {
    type WatchEventsStream = Watched;

    async fn watch_events(
        &self,
        request: Request<pb::WatchEventsRequest>,
    ) -> Result<Response<Watched>, Status> {
        Ok(Response::new(watch::watch(&self.0, request.into_inner())))
    }

    async fn apply_policy(
        &self,
        request: Request<pb::ApplyPolicyRequest>,
    ) -> Result<Response<pb::Policy>, Status> {
        let who = Who::of(&request)?;
        Ok(Response::new(self.apply(&who, "apply_policy", request.into_inner()).await?))
    }

    async fn get_policy(
        &self,
        request: Request<pb::GetPolicyRequest>,
    ) -> Result<Response<pb::Policy>, Status> {
        let pb::GetPolicyRequest { domain, version } = request.into_inner();
        let (domain, _) = self.named(&domain, "")?;
        let Kept { stored, version, current } = self.kept(&domain, version).await?;
        let checked = self.check(&format!("rpc:{domain}"), &stored.yaml).await?;
        let outcome = checked.map(|checked| checked.warnings);
        let mut policy = self.policy(&domain, stored, version, &outcome);
        if !current {
            policy.etag.clear();
        }
        Ok(Response::new(policy))
    }

    async fn list_policies(
        &self,
        _request: Request<pb::ListPoliciesRequest>,
    ) -> Result<Response<pb::ListPoliciesResponse>, Status> {
        let stale = self.0.read_once().await?;
        let layered = self.0.layered();
        let policy = |(domain, offer): (&Arc<str>, &Arc<Offer>)| {
            let stored = StoredPolicy { yaml: offer.text(), updated_at: offer.since.at };
            self.policy(domain, stored, offer.since.version, &offer.outcome)
        };
        // A domain that a control plane defines is as if a file defined it.
        let fed = [Origin::Files, Origin::Xds].into_iter().flat_map(|of| layered.offers(of));
        let file_domains: BTreeSet<_> = fed.map(|(domain, _)| domain.to_string()).collect();
        Ok(Response::new(pb::ListPoliciesResponse {
            policies: layered.offers(Origin::Registry).map(policy).collect(),
            file_domains: file_domains.into_iter().collect(),
            warnings: stale.into_iter().collect(),
        }))
    }

    async fn list_policy_versions(
        &self,
        request: Request<pb::ListPolicyVersionsRequest>,
    ) -> Result<Response<pb::ListPolicyVersionsResponse>, Status> {
        let (domain, _) = self.named(&request.get_ref().domain, "")?;
        Ok(Response::new(self.versions(&domain).await?))
    }

    async fn rollback_policy(
        &self,
        request: Request<pb::RollbackPolicyRequest>,
    ) -> Result<Response<pb::Policy>, Status> {
        let who = Who::of(&request)?;
        let request = request.into_inner();
        let (domain, _) = self.named(&request.domain, &request.etag)?;
        if request.version == 0 {
            return Err(violation("version", "is required: one that ListPolicyVersions lists"));
        }
        let yaml = self.kept(&domain, request.version).await?.stored.yaml;
        let (etag, validate_only) = (request.etag, request.validate_only);
        let request = pb::ApplyPolicyRequest { yaml, etag, validate_only };
        Ok(Response::new(self.apply(&who, "rollback_policy", request).await?))
    }

    async fn delete_policy(
        &self,
        request: Request<pb::DeletePolicyRequest>,
    ) -> Result<Response<pb::DeletePolicyResponse>, Status> {
        let who = Who::of(&request)?;
        let pb::DeletePolicyRequest { domain, etag } = request.into_inner();
        let (domain, expect) = self.named(&domain, &etag)?;
        let expect = if expect == Expect::Anything { Expect::Present } else { expect };
        self.store(&who, "delete_policy", &domain, None, expect).await?;
        Ok(Response::new(pb::DeletePolicyResponse {}))
    }

    async fn set_mode(
        &self,
        request: Request<pb::SetModeRequest>,
    ) -> Result<Response<pb::SetModeResponse>, Status> {
        let who = Who::of(&request)?;
        Ok(Response::new(mode::set(&self.0, &who, request.into_inner()).await?))
    }

    async fn list_modes(
        &self,
        _request: Request<pb::ListModesRequest>,
    ) -> Result<Response<pb::ListModesResponse>, Status> {
        Ok(Response::new(mode::list(&self.0)))
    }

    async fn set_scale(
        &self,
        request: Request<pb::SetScaleRequest>,
    ) -> Result<Response<pb::SetScaleResponse>, Status> {
        let who = Who::of(&request)?;
        Ok(Response::new(scale::set(&self.0, &who, request.get_ref()).await?))
    }

    async fn list_scales(
        &self,
        request: Request<pb::ListScalesRequest>,
    ) -> Result<Response<pb::ListScalesResponse>, Status> {
        Ok(Response::new(scale::list(&self.0, request.get_ref()).await?))
    }

    async fn set_log_level(
        &self,
        request: Request<pb::SetLogLevelRequest>,
    ) -> Result<Response<pb::SetLogLevelResponse>, Status> {
        let who = Who::of(&request)?;
        Ok(Response::new(log_level::set(&self.0, &who, request.get_ref())?))
    }

    async fn explain(
        &self,
        request: Request<pb::ExplainRequest>,
    ) -> Result<Response<pb::ExplainResponse>, Status> {
        Ok(Response::new(explain::explain(&self.0, request.into_inner()).await?))
    }

    async fn get_top(
        &self,
        request: Request<pb::GetTopRequest>,
    ) -> Result<Response<pb::GetTopResponse>, Status> {
        Ok(Response::new(top::list(&self.0, request.get_ref())?))
    }
}

impl<R: Registry, S: LimitStore> Policies<R, S> {
    async fn apply(
        &self,
        who: &Who,
        action: &'static str,
        request: pb::ApplyPolicyRequest,
    ) -> Result<pb::Policy, Status> {
        if request.yaml.is_empty() {
            return Err(violation(FIELD, "is required: the text of a policy file"));
        }
        let mut validator = self.validator();
        let expect = validator.etag(&request.etag, "etag");
        let checked = self.check(FIELD, &request.yaml).await?;
        let checked = checked.map_err(|faults| faulty(validator.violations, &faults))?;
        let domain = {
            let mut validator = self.validator();
            let domain = validator.domain(&checked.domain, FIELD);
            validator.violations.check()?;
            domain.unwrap_or_default()
        };
        let Some(expect) = expect else {
            return Err(violation("etag", "is no etag; use the one of an answer, or none"));
        };
        let stored = StoredPolicy { yaml: request.yaml, updated_at: self.0.now() };
        let key = policy_key(&domain);
        let open_secrets = checked.sensitive && self.0.shared().resolver.keys.hasher().is_open();
        let outcome = Ok(checked.warnings);
        if request.validate_only {
            if let Expect::Revision(wanted) = expect {
                let found = self.0.read(&key).await?.map(|record| record.revision);
                if found != Some(wanted) {
                    return Err(stale(found, "etag"));
                }
            }
            return Ok(warned(self.policy(&domain, stored, 0, &outcome), open_secrets));
        }
        let revision = self.store(who, action, &domain, Some(&stored), expect).await?;
        if open_secrets {
            tracing::warn!(%domain, "{OPEN_SECRETS}");
        }
        Ok(warned(self.policy(&domain, stored, revision, &outcome), open_secrets))
    }

    /// Checks one text by itself, on a thread that may block.
    pub(super) async fn check(
        &self,
        name: &str,
        yaml: &str,
    ) -> Result<Result<Checked, Faults>, Status> {
        let checked = self.0.control.writer().check(name.to_owned(), yaml.to_owned()).await;
        checked.map_err(|error| {
            tracing::error!(%error, "the check of a policy failed");
            Status::internal("the check of the policy failed")
        })
    }

    fn validator(&self) -> Validator<'_> {
        let (bounds, now) = (&self.0.shared().bounds, self.0.now());
        Validator { bounds, now, violations: Violations::default() }
    }

    /// A domain and an etag as fields of a request.
    fn named(&self, domain: &str, etag: &str) -> Result<(Arc<str>, Expect), Status> {
        let mut validator = self.validator();
        let (domain, expect) = (validator.domain(domain, "domain"), validator.etag(etag, "etag"));
        domain.zip(expect).ok_or_else(|| validator.violations.into_status())
    }

    fn policy(
        &self,
        domain: &str,
        stored: StoredPolicy,
        revision: u64,
        outcome: &Result<Vec<Warning>, Faults>,
    ) -> pb::Policy {
        let (warnings, faults) = match outcome {
            Ok(warnings) => (warnings.as_slice(), &[][..]),
            Err(faults) => (faults.warnings(), faults.faults()),
        };
        pb::Policy {
            domain: domain.to_owned(),
            yaml: stored.yaml,
            etag: convert::etag(revision),
            updated_at: Some(convert::timestamp(stored.updated_at)),
            shadowed_by_file: Some(
                self.0.layered().shadowed_by(Origin::Registry, domain).is_some(),
            ),
            warnings: warnings.iter().map(ToString::to_string).collect(),
            faults: faults.iter().map(ToString::to_string).collect(),
            version: revision,
        }
    }
}

/// All faults in the message, as `tollgate check` prints them, and each as a violation.
fn faulty(mut violations: Violations, faults: &Faults) -> Status {
    for fault in faults.faults() {
        let hint = fault.hint.as_ref().map_or(String::new(), |hint| format!("; {hint}"));
        let place = match fault.place.line {
            0 => String::new(),
            line => format!("line {line}, column {}: ", fault.place.column),
        };
        violations.add(FIELD, format!("{place}{}{hint}", fault.message));
    }
    let mut message = faults.to_string();
    if message.len() > LONGEST_MESSAGE {
        message = message.chars().take(LONGEST_MESSAGE).collect();
        message.push_str("\n...; `tollgate check` tells all of them");
    }
    violations.into_status_saying(message)
}

/// The policy with a warning that its secrets are open, if they are.
fn warned(mut policy: pb::Policy, open_secrets: bool) -> pb::Policy {
    policy.warnings.extend(open_secrets.then(|| format!("warning: {OPEN_SECRETS}")));
    policy
}

pub(super) fn missing() -> Status {
    Status::not_found("domain: no RPC applied a policy of this domain")
}
