//! `Delete`: clients by name, all of them or none.

use std::cmp::Reverse;
use std::collections::HashMap;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use tonic::Status;

use super::{Act, CONCURRENT_READS, MOST, missing, stale};
use crate::control::audit::{self, Attempt};
use crate::control::registry::{Change, Expect, Record, Registry, RegistryError, Written};
use crate::edge::admin::convert;
use crate::edge::admin::service::failed;
use crate::edge::admin::violations::violation;
use crate::edge::pb::tollgate::v1::ManageClientsResponse;
use crate::edge::pb::tollgate::v1::manage_clients_request::Delete;
use crate::limits::{Client, ClientName};
use crate::store::LimitStore;

/// A client to delete.
struct Doomed {
    name: ClientName,
    /// The name of its record, and those that it may have instead.
    form: ClientName,
    others: Vec<ClientName>,
    expect: Expect,
    /// The field that names it.
    at: String,
}

impl<R: Registry, S: LimitStore> Act<'_, R, S> {
    pub(super) async fn delete(self, delete: Delete) -> Result<ManageClientsResponse, Status> {
        let doomed = self.doomed(delete)?;
        if self.validate_only {
            return self.as_if_deleted(&doomed).await;
        }
        let (doomed, outcome) = self.delete_in_some_form(doomed).await?;
        let at = |index: usize| doomed.get(index).map_or("delete", |doomed| &doomed.at);
        let written = outcome.map_err(|error| match error {
            RegistryError::Conflict { index, found: None, .. } => missing(at(index)),
            RegistryError::Conflict { index, found, .. } => {
                stale(found, &format!("{}.etag", at(index)))
            }
            error => failed(&error),
        })?;
        // A record that cannot be read is deleted like any other.
        let read = |record: Record| Client::from_record(&record.value, record.revision).ok();
        let before = written.before.into_iter().take(doomed.len());
        let mut clients: Vec<Client> = before.flatten().filter_map(read).collect();
        let (found, now) = (clients.len(), self.admin.now());
        clients.retain(|client| !client.is_expired(now));
        // What has expired was as good as deleted.
        if clients.is_empty() && found == doomed.len() {
            return Err(missing(at(0)));
        }
        Ok(ManageClientsResponse {
            clients: clients.iter().map(convert::client).collect(),
            revision: Some(written.mark.revision),
            ..Default::default()
        })
    }

    /// Deletes all or none in the forms that this replica knows, or where these are not there, in
    /// those that the registry has: another replica may have renamed them since.
    async fn delete_in_some_form(
        &self,
        doomed: Vec<Doomed>,
    ) -> Result<(Vec<Doomed>, Result<Written, RegistryError>), Status> {
        let outcome = self.delete_forms(&doomed).await;
        let renamed = matches!(outcome, Err(RegistryError::Conflict { .. }))
            && doomed.iter().any(|doomed| !doomed.others.is_empty());
        if !renamed {
            return Ok((doomed, outcome));
        }
        let reads = stream::iter(doomed).map(|doomed| self.in_stored_form(doomed));
        let doomed: Vec<Doomed> = reads.buffered(CONCURRENT_READS).try_collect().await?;
        let outcome = self.delete_forms(&doomed).await;
        Ok((doomed, outcome))
    }

    async fn delete_forms(&self, doomed: &[Doomed]) -> Result<Written, RegistryError> {
        let directory = self.admin.shared().resolver.clients.directory();
        let change = |Doomed { form, expect, .. }: &Doomed| {
            let expect = if *expect == Expect::Anything { Expect::Present } else { *expect };
            Change { key: form.record_key(), expect, value: None }
        };
        // An older record in another form would come into force.
        let older = doomed.iter().flat_map(|doomed| &doomed.others);
        let older = older.filter(|form| directory.get(form).is_some()).map(|form| Change {
            key: form.record_key(),
            expect: Expect::Anything,
            value: None,
        });
        let changes = doomed.iter().map(change).chain(older).collect();
        let attempt = doomed.iter().fold(Attempt::by(&self.who), |attempt, doomed| {
            let title = audit::client_title(self.admin.shared(), &doomed.name);
            attempt.and("delete_client", title, audit::NOTHING, audit::client_record)
        });
        self.admin.write(attempt, changes).await
    }

    /// With the forms that the registry has, the newest first, if it has one.
    async fn in_stored_form(&self, mut doomed: Doomed) -> Result<Doomed, Status> {
        if doomed.others.is_empty() {
            return Ok(doomed);
        }
        let mut there = Vec::with_capacity(1 + doomed.others.len());
        for form in std::iter::once(&doomed.form).chain(&doomed.others) {
            if let Some(record) = self.admin.read(&form.record_key()).await? {
                there.push((record.revision, form.clone()));
            }
        }
        there.sort_by_key(|(revision, _)| Reverse(*revision));
        let mut there = there.into_iter().map(|(_, form)| form);
        if let Some(newest) = there.next() {
            doomed.form = newest;
            doomed.others = there.collect();
        }
        Ok(doomed)
    }

    async fn as_if_deleted(&self, doomed: &[Doomed]) -> Result<ManageClientsResponse, Status> {
        let mut clients = Vec::with_capacity(doomed.len());
        for Doomed { name, expect, at, .. } in doomed {
            clients.push(convert::client(&self.there(name, *expect, at).await?));
        }
        let revision = Some(self.admin.revision());
        Ok(ManageClientsResponse { clients, revision, ..Default::default() })
    }

    fn doomed(&self, Delete { client, clients }: Delete) -> Result<Vec<Doomed>, Status> {
        let count = clients.len() + usize::from(client.is_some());
        if count == 0 {
            return Err(violation("delete.client", "is required, or delete.clients"));
        }
        if count > MOST {
            let expected = format!("found {count}, expected 1 to {MOST}");
            return Err(violation("delete.clients", expected));
        }
        let one = client.map(|client| (client, "delete.client".to_owned()));
        let more = clients.into_iter().enumerate();
        let more = more.map(|(i, client)| (client, format!("delete.clients[{i}]")));
        let mut validator = self.validator();
        let mut doomed: Vec<Doomed> = Vec::with_capacity(count);
        let mut first: HashMap<ClientName, usize> = HashMap::with_capacity(count);
        for (client, at) in one.into_iter().chain(more) {
            let Some((name, expect)) = validator.client_name(Some(client), &at) else { continue };
            let mut others = self.forms(&name);
            let seen = others
                .iter()
                .map(|form| *first.entry(form.clone()).or_insert(doomed.len()))
                .find(|seen| *seen != doomed.len());
            if let Some(other) = seen.and_then(|seen| doomed.get(seen)) {
                validator.violations.add(&at, format!("is the same client as {}", other.at));
            }
            let form = others.remove(0);
            doomed.push(Doomed { name, form, others, expect, at });
        }
        validator.violations.check()?;
        Ok(doomed)
    }
}
