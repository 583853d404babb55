//! `ResetUsage`: the counters of any descriptor, emptied.

use smallvec::smallvec;
use tonic::Status;

use super::{Act, expected};
use crate::control::audit;
use crate::control::registry::{Expect, Record, Registry};
use crate::domain::Hits;
use crate::edge::admin::convert;
use crate::edge::admin::service::corrupt;
use crate::edge::admin::violations::violation;
use crate::edge::grpc::convert::override_from_pb;
use crate::edge::pb::tollgate::v1::ManageClientsResponse;
use crate::edge::pb::tollgate::v1::manage_clients_request::ResetUsage;
use crate::limiter::request::{Descriptor, Entry, Override, Request};
use crate::limiter::resolve::{Counters, Uncounted};
use crate::limits::{Client, ClientName};
use crate::store::LimitStore;

/// The field that names the descriptor.
const AT: &str = "reset_usage.client";

impl<R: Registry, S: LimitStore> Act<'_, R, S> {
    pub(super) async fn reset_usage(
        self,
        ResetUsage { client, limit }: ResetUsage,
    ) -> Result<ManageClientsResponse, Status> {
        let (name, expect) = self.name(client, AT)?;
        if name.entries.has_hashes() {
            let expected =
                "needs the values themselves: counters are not named by these hashes alone";
            return Err(violation(&format!("{AT}.entries"), expected));
        }
        let client = self.client_of(&name, expect).await?;
        let shared = self.admin.shared();
        let request = request(&name, limit.as_ref().map(override_from_pb));
        let counters = shared.resolver.counters(&request, &shared.policies.current());
        let mut answer = ManageClientsResponse {
            clients: client.iter().map(convert::client).collect(),
            warnings: warnings(&counters),
            revision: Some(self.admin.revision()),
            ..Default::default()
        };
        if self.validate_only {
            return Ok(answer);
        }
        let forgotten = self.admin.limiter.forget(&counters.keys, self.admin.deadline()).await;
        let count = forgotten.map_err(|error| Status::unavailable(error.to_string()))?;
        answer.counters_reset = Some(count);
        let title = audit::client_title(shared, &name);
        let before = format!("{count} counters");
        audit::changed(&self.who, "reset_usage", &title, &before, "0 counters");
        Ok(answer)
    }

    /// The client of this name as the registry has it, and as it is in force here.
    async fn client_of(&self, name: &ClientName, expect: Expect) -> Result<Option<Client>, Status> {
        let found = self.record(name).await?;
        expected(expect, found.as_ref(), &format!("{AT}.etag"))?;
        let here = self.admin.shared().resolver.stored_client(name);
        let newest = found.as_ref().map(|found| found.revision);
        if here.map(|here| here.revision) != newest {
            self.admin.catch_up(newest.unwrap_or_default()).await;
        }
        let read = |found: &Record| Client::from_record(&found.value, found.revision);
        let client = found.as_ref().map(read).transpose().map_err(|error| corrupt(&error))?;
        Ok(client.filter(|client| !client.is_expired(self.admin.now())))
    }
}

/// A request with this descriptor.
fn request(name: &ClientName, limit: Option<Override>) -> Request<'_> {
    let entries = name.entries.pairs().map(|(key, value)| Entry { key, value }).collect();
    let descriptor =
        Descriptor { entries, hits: Hits::Take(1), own_hits: false, usage: None, limit };
    Request { domain: name.domain.as_bytes(), descriptors: smallvec![descriptor] }
}

/// Warnings about input that works but is probably not meant.
fn warnings(Counters { uncounted, shared, .. }: &Counters) -> Vec<String> {
    let uncounted = uncounted.map(|uncounted| match uncounted {
        Uncounted::UnknownDomain => {
            format!("{AT}.domain: no policy and no client names it, so nothing counts")
        }
        Uncounted::NoRule => {
            format!("{AT}.entries: no rule limits them and they are no client, so nothing counts")
        }
        Uncounted::Unlimited => {
            format!("{AT}: requests with this descriptor are unlimited, so nothing counts")
        }
        Uncounted::InvalidOverride => "reset_usage.limit: cannot be understood and no rule limits \
             the descriptor, so nothing counts; give requests_per_unit and unit"
            .to_owned(),
    });
    let shared = shared.as_ref().map(|pattern| {
        format!("{AT}.entries: all values of the pattern {pattern:?} share the rule's counters")
    });
    uncounted.into_iter().chain(shared).collect()
}
