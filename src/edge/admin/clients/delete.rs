//! `Delete`: clients by name, all of them or none.

use std::collections::HashMap;

use tonic::Status;

use super::{Act, MOST, missing, stale};
use crate::control::audit::{self, Attempt};
use crate::control::registry::{Change, Expect, Record, Registry, RegistryError};
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
        let change = |Doomed { name, expect, .. }: &Doomed| {
            let expect = if *expect == Expect::Anything { Expect::Present } else { *expect };
            Change { key: name.record_key(), expect, value: None }
        };
        let changes = doomed.iter().map(change).collect();
        let at = |index: usize| doomed.get(index).map_or("delete", |doomed| &doomed.at);
        let attempt = doomed.iter().fold(Attempt::by(&self.who), |attempt, doomed| {
            let title = audit::client_title(self.admin.shared(), &doomed.name);
            attempt.and("delete_client", title, audit::NOTHING, audit::client_record)
        });
        let written = self.admin.write(attempt, changes).await.map_err(|error| match error {
            RegistryError::Conflict { index, found: None, .. } => missing(at(index)),
            RegistryError::Conflict { index, found, .. } => {
                stale(found, &format!("{}.etag", at(index)))
            }
            error => failed(&error),
        })?;
        // A record that cannot be read is deleted like any other.
        let read = |record: Record| Client::from_record(&record.value, record.revision).ok();
        let mut clients: Vec<Client> =
            written.before.into_iter().flatten().filter_map(read).collect();
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

    async fn as_if_deleted(&self, doomed: &[Doomed]) -> Result<ManageClientsResponse, Status> {
        let mut clients = Vec::with_capacity(doomed.len());
        for Doomed { name, expect, at } in doomed {
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
            let other = first.insert(name.clone(), doomed.len());
            if let Some(other) = other.and_then(|other| doomed.get(other)) {
                validator.violations.add(&at, format!("is the same client as {}", other.at));
            }
            doomed.push(Doomed { name, expect, at });
        }
        validator.violations.check()?;
        Ok(doomed)
    }
}
