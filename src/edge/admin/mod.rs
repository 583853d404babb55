//! The management edge: what operators change and ask while traffic flows, over gRPC on the admin listener.
//!
//! ```text
//!  grpcurl -> auth -> clients | policies | mode | explain      (protobuf ends here)
//!                         |           |        |
//!                     registry    registry   limiter: resolve, layers, store; charging nothing
//!                         |
//!                     follower -> mirror -> clients, policies, modes in force
//! ```
//! A change is written to the [`Registry`], put in force here by the [`Follower`], logged by `audit`, and only then
//! acknowledged. Every other replica has a follower too.
//!
//! * [`routes`]: the services, guarded by [`auth::Guard`].

pub mod auth;
mod clients;
mod convert;
mod explain;
mod mode;
mod page;
mod policies;
mod validate;
mod violations;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tonic::Status;
use tonic::service::Routes;
use tonic::service::interceptor::InterceptedService;

use self::auth::Guard;
use crate::control::follower::Follower;
use crate::control::mirror::Mirror;
use crate::control::registry::{Change, Record, Registry, RegistryError, Written};
use crate::limiter::{Limiter, Shared};
use crate::store::LimitStore;

/// The messages and services of `tollgate.v1`.
pub mod pb {
    pub use crate::edge::pb::tollgate::v1::*;
}

use self::pb::client_service_server::ClientServiceServer;
use self::pb::policy_service_server::PolicyServiceServer;

/// The services behind the admin listener, as health knows them.
pub const SERVICE_NAMES: [&str; 2] =
    [pb::client_service_server::SERVICE_NAME, pb::policy_service_server::SERVICE_NAME];

/// The largest message: a thousand clients with metadata, or a policy.
const MESSAGE_BYTES: usize = 16 << 20;

/// What the services share.
#[derive(Debug)]
pub struct Admin<R, S> {
    follower: Arc<Follower<R, Mirror>>,
    limiter: Limiter<S>,
    store_deadline: Duration,
}

impl<R: Registry, S: LimitStore> Admin<R, S> {
    /// Writes to the registry of `follower`, which puts it in force, and asks `limiter`, whose store may take
    /// `store_deadline`.
    pub const fn new(
        follower: Arc<Follower<R, Mirror>>,
        limiter: Limiter<S>,
        store_deadline: Duration,
    ) -> Self {
        Self { follower, limiter, store_deadline }
    }

    fn mirror(&self) -> &Mirror {
        self.follower.mirror()
    }

    /// The revision that this replica has followed.
    fn revision(&self) -> u64 {
        self.follower.progress().revision
    }

    fn shared(&self) -> &Shared {
        self.mirror().shared()
    }

    /// The present, in microseconds since 1970.
    fn now(&self) -> u64 {
        self.shared().resolver.clients.now()
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.store_deadline
    }

    async fn read(&self, key: &Bytes) -> Result<Option<Record>, Status> {
        self.follower.registry().read(key).await.map_err(|error| failed(&error))
    }

    /// Writes, and puts in force what was written.
    async fn write(&self, changes: Vec<Change>) -> Result<Written, RegistryError> {
        crate::control::write(&self.follower, changes).await
    }
}

/// The status of a registry that did not do it; a conflict is for the caller to explain.
fn failed(error: &RegistryError) -> Status {
    match error {
        RegistryError::Conflict { .. } => Status::aborted(error.to_string()),
        RegistryError::Unavailable(_) => {
            tracing::warn!(%error, "an administrative call failed");
            Status::unavailable(error.to_string())
        }
        RegistryError::Corrupt(_) => {
            tracing::error!(%error, "an administrative call failed");
            Status::internal(error.to_string())
        }
    }
}

/// A record that is there and cannot be read.
fn corrupt(error: &dyn std::error::Error) -> Status {
    tracing::error!(%error, "a record of the registry cannot be read");
    Status::internal(error.to_string())
}

/// The services, for [`crate::edge::grpc::server::serve_admin`].
pub fn routes<R: Registry, S: LimitStore>(admin: Arc<Admin<R, S>>, guard: Guard) -> Routes {
    let clients = ClientServiceServer::new(clients::Clients(Arc::clone(&admin)))
        .max_decoding_message_size(MESSAGE_BYTES);
    let policies = PolicyServiceServer::new(policies::Policies(admin))
        .max_decoding_message_size(MESSAGE_BYTES);
    Routes::new(InterceptedService::new(clients, guard.clone()))
        .add_service(InterceptedService::new(policies, guard))
}
