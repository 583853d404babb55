//! `Upsert`: clients stored, all of them or none; those that are stored already are not written.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use tonic::Status;

use super::{Act, CONCURRENT_READS, MOST, expected, no_such_plan, stale};
use crate::control::audit::{self, Attempt};
use crate::control::registry::{Change, Expect, Registry, RegistryError};
use crate::edge::admin::convert;
use crate::edge::admin::service::{corrupt, failed};
use crate::edge::admin::violations::{Violations, violation};
use crate::edge::pb::tollgate::v1::ManageClientsResponse;
use crate::edge::pb::tollgate::v1::manage_clients_request::Upsert;
use crate::limits::{Client, ClientName, PlanKey};
use crate::policy::network;
use crate::store::LimitStore;

/// A client to be stored.
struct Wanted {
    /// Its name as the request has it.
    named: ClientName,
    /// As it is to be stored.
    client: Client,
    expect: Expect,
    /// The name of the record that it replaces: another one when policies marked other values as
    /// sensitive then.
    there: ClientName,
    /// The field that has it.
    at: String,
}

impl Wanted {
    /// A violated etag, by its field.
    fn stale(&self, found: Option<u64>) -> Status {
        stale(found, &format!("{}.etag", self.at))
    }
}

impl<R: Registry, S: LimitStore> Act<'_, R, S> {
    pub(super) async fn upsert(self, upsert: Upsert) -> Result<ManageClientsResponse, Status> {
        let mut warnings = without_requests(&upsert);
        let wanted = self.wanted(upsert)?;
        self.check_plans(&wanted).await?;
        warnings.extend(self.warnings(&wanted));
        let stored = self.stored_alike(&wanted).await?;
        let both = wanted.iter().zip(&stored);
        let changed: Vec<&Wanted> =
            both.filter_map(|(wanted, stored)| stored.is_none().then_some(wanted)).collect();
        let unchanged = wanted.len() - changed.len();
        let (mut revision, mut written) = (self.admin.revision(), 0);
        if self.validate_only {
            self.check_etags(&changed).await?;
        } else if !changed.is_empty() {
            written = self.store(&changed).await?;
            revision = written;
        }
        let clients = wanted.into_iter().zip(stored).map(|(wanted, stored)| {
            stored.unwrap_or(Client { revision: written, ..wanted.client })
        });
        Ok(ManageClientsResponse {
            clients: clients.map(|client| convert::client(&client)).collect(),
            warnings,
            revision: Some(revision),
            unchanged: u32::try_from(unchanged).ok(),
            ..Default::default()
        })
    }

    fn wanted(&self, upsert: Upsert) -> Result<Vec<Wanted>, Status> {
        let count = upsert.clients.len();
        if count == 0 || count > MOST {
            let expected = format!("found {count}, expected 1 to {MOST}");
            return Err(violation("upsert.clients", expected));
        }
        let mut validator = self.validator();
        let mut good = Vec::with_capacity(count);
        let mut first: HashMap<ClientName, usize> = HashMap::with_capacity(count);
        for (i, client) in upsert.clients.into_iter().enumerate() {
            let at = format!("upsert.clients[{i}]");
            let Some((mut client, expect)) = validator.client(client, &at) else { continue };
            let named = client.name.clone();
            client.name = self.hidden(&named);
            let there = self.admin.shared().resolver.stored_client(&named);
            let there = there.map_or_else(|| client.name.clone(), |there| there.name.clone());
            let seen = [&client.name, &there]
                .map(|form| *first.entry(form.clone()).or_insert(i))
                .into_iter()
                .find(|seen| *seen != i);
            if let Some(other) = seen {
                let message = format!("is the same client as upsert.clients[{other}]");
                validator.violations.add(&at, message);
            }
            good.push(Wanted { named, client, expect, there, at });
        }
        validator.violations.check()?;
        Ok(good)
    }

    /// Refuses clients that name a plan which does not exist. A client that has it already keeps
    /// it: the deletion of a plan must not be in the way of a block.
    async fn check_plans(&self, wanted: &[Wanted]) -> Result<(), Status> {
        let mut violations = Violations::default();
        let directory = self.admin.shared().resolver.clients.directory();
        for Wanted { client, there, at, .. } in wanted {
            let Some(plan) = client.plan.as_deref() else { continue };
            if directory.get(there).is_some_and(|there| there.plan == client.plan) {
                continue;
            }
            for (field, name) in ["plan", "plan_then"].into_iter().zip(plan.names()) {
                let domain = Arc::clone(&client.name.domain);
                let key = PlanKey { domain, name: name.as_str().into() };
                if !self.has_plan(&key).await? {
                    violations.add(format!("{at}.{field}"), no_such_plan(&key));
                }
            }
        }
        violations.check()
    }

    /// Of each of `wanted` the client that is stored, if a write would change nothing but its time
    /// and revision.
    ///
    /// The registry is asked only about clients that look the same here, as most upserts change
    /// something. A client that is stored in another form than it should be does not look the same.
    async fn stored_alike(&self, wanted: &[Wanted]) -> Result<Vec<Option<Client>>, Status> {
        let directory = self.admin.shared().resolver.clients.directory();
        let alike = async |Wanted { client, expect, there, at, .. }: &Wanted| {
            let here = directory.get(there);
            if !here.is_some_and(|here| here.says_the_same_as(client)) {
                return Ok(None);
            }
            let Some(found) = self.admin.read(&there.record_key()).await? else {
                return Ok(None);
            };
            expected(*expect, Some(&found), &format!("{at}.etag"))?;
            let stored = Client::from_record(&found.value, found.revision).ok();
            Ok(stored.filter(|stored| stored.says_the_same_as(client)))
        };
        let reads = stream::iter(wanted).map(alike);
        reads.buffered(CONCURRENT_READS).try_collect().await
    }

    async fn check_etags(&self, changed: &[&Wanted]) -> Result<(), Status> {
        for Wanted { expect, there, at, .. } in changed {
            if *expect != Expect::Anything {
                let found = self.admin.read(&there.record_key()).await?;
                expected(*expect, found.as_ref(), &format!("{at}.etag"))?;
            }
        }
        Ok(())
    }

    /// Stores clients, and returns the revision of the write.
    async fn store(&self, changed: &[&Wanted]) -> Result<u64, Status> {
        let mut attempt = Attempt::by(&self.who);
        let mut changes = Vec::with_capacity(changed.len());
        // The other forms of their names go in the same write.
        let (mut replaced, mut of) = (Vec::new(), Vec::new());
        for &wanted in changed {
            let Wanted { client, expect, there, .. } = wanted;
            let title = audit::client_title(self.admin.shared(), &client.name);
            let after = audit::client_state(Some(client));
            attempt = attempt.and("upsert_client", title, after, audit::client_record);
            let value = Some(client.to_record().map_err(|error| corrupt(&error))?);
            let key = client.name.record_key();
            let is_renamed = *there != client.name;
            if is_renamed {
                replaced.push(Change { key: there.record_key(), expect: *expect, value: None });
                of.push(wanted);
            }
            let expect = if is_renamed { Expect::Anything } else { *expect };
            changes.push(Change { key, expect, value });
        }
        changes.append(&mut replaced);
        let written = self.admin.write(attempt, changes).await.map_err(|error| match error {
            RegistryError::Conflict { index, found, .. } => {
                let wanted = changed.iter().chain(&of).nth(index);
                wanted.map_or_else(|| failed(&error), |wanted| wanted.stale(found))
            }
            error => failed(&error),
        })?;
        Ok(written.mark.revision)
    }

    /// Warnings about input that works but is probably not meant.
    fn warnings(&self, wanted: &[Wanted]) -> Vec<String> {
        let snapshot = self.admin.shared().policies.current();
        let warn = |Wanted { named: name, at, .. }: &Wanted| {
            let Some(policy) = snapshot.policies.domain(name.domain.as_bytes()) else {
                return Some(format!(
                    "{at}.domain: no policy names it, so only clients are limited"
                ));
            };
            // No rule says anything of a value that is not known.
            if name.entries.has_hashes() {
                return None;
            }
            if policy.goes_on(name.entries.pairs()) {
                return Some(format!(
                    "{at}.entries: the policy has longer descriptors that begin with these; the client \
                     is not theirs, only that of requests with exactly these entries"
                ));
            }
            policy.find(name.entries.pairs()).is_none().then(|| {
                format!(
                    "{at}.entries: no rule matches them; the client limits only requests that send \
                     exactly this descriptor"
                )
            })
        };
        wanted.iter().flat_map(literal_values).chain(wanted.iter().filter_map(warn)).collect()
    }
}

/// Warns of values that look like many values: a client is one descriptor, and its values are
/// compared as text.
fn literal_values(Wanted { named: name, at, .. }: &Wanted) -> impl Iterator<Item = String> + '_ {
    name.entries.texts().enumerate().filter_map(move |(j, (key, value))| {
        let value = value.text();
        let advice = if value.contains('*') {
            "a rule can match a pattern: put it into the policy".to_owned()
        } else {
            network::advice(key, value)?
        };
        Some(format!(
            "{at}.entries[{j}].value: it is compared as text, so it matches only itself; {advice}"
        ))
    })
}

/// Warnings of limits that block because their requests were left out.
fn without_requests(upsert: &Upsert) -> Vec<String> {
    let limits = upsert.clients.iter().enumerate().flat_map(|(i, client)| {
        client.limits.iter().enumerate().map(move |(j, limit)| (i, j, limit))
    });
    let blind = limits.filter(|(.., limit)| limit.requests_per_unit.is_none() && !limit.unlimited);
    let warning = |(i, j, _)| {
        format!(
            "upsert.clients[{i}].limits[{j}].requests_per_unit: is not set, so the limit is 0 and blocks \
             the client; set it, or unlimited"
        )
    };
    blind.map(warning).collect()
}
