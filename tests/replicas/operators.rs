//! An operator who changes clients and policies at any replica, and at another one when that fails.

use fastrand::Rng;
use tollgate::domain::{Clock as _, WallClock};
use tollgate::edge::admin::pb::ApplyPolicyRequest;
use tollgate::edge::admin::pb::Client;
use tonic::{Code, Status};

use crate::callers::Failure;
use crate::fleet::Address;
use crate::support::operator::Operator;

/// An operator before all replicas.
pub struct Operators {
    addresses: Vec<Address>,
    random: Rng,
    pub failures: Vec<Failure>,
}

impl Operators {
    pub fn new(addresses: Vec<Address>, random: Rng) -> Self {
        Self { addresses, random, failures: Vec::new() }
    }

    pub async fn upsert(&mut self, client: Client) {
        self.send(async |operator| operator.upsert(client.clone()).await.map(drop)).await;
    }

    /// Deletes the client, if it is there.
    pub async fn delete(&mut self, client: Client) {
        self.send(async |operator| match operator.delete(client.clone()).await {
            Err(status) if status.code() == Code::NotFound => Ok(()),
            other => other.map(drop),
        })
        .await;
    }

    pub async fn apply(&mut self, yaml: String) {
        self.send(async |operator| {
            let message = ApplyPolicyRequest { yaml: yaml.clone(), ..Default::default() };
            operator.policies().apply_policy(message).await.map(drop)
        })
        .await;
    }

    /// Repeats a change until a replica answers. One that was made already is made again.
    async fn send(&mut self, change: impl AsyncFn(Operator) -> Result<(), Status>) {
        loop {
            let replica = self.random.usize(..self.addresses.len());
            let sent = WallClock.now();
            let answer = match Operator::at(self.addresses[replica].admin).await {
                Ok(operator) => change(operator).await,
                Err(error) => Err(Status::unavailable(error.to_string())),
            };
            let Err(status) = answer else { return };
            let received = WallClock.now();
            self.failures.push(Failure { replica, sent, received, status });
        }
    }
}
