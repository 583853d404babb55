//! The management edge: what operators change and ask while traffic flows, over gRPC on the admin
//! listener.
//!
//! ```text
//!  grpcurl -> auth -> clients | plans | policies | mode | scale | explain | top  (protobuf ends)
//!                         |       |         |       |
//!                      registry    registry    limiter: resolve, layers, store; charging nothing
//! ```
//! Admin edits the [`Registry`] and asks; [`crate::control::Control`] puts a change in force here
//! before it is acknowledged, and on every other replica. `audit` logs it.
//!
//! * [`routes`]: the services. [`auth::Guard`] admits calls to them, by [`identity`] and `roles`;
//!   `failures`: calls with a wrong token, slowed down.

pub mod auth;
mod clients;
mod convert;
mod explain;
mod failures;
pub mod identity;
mod log_level;
mod mode;
pub mod page;
mod plans;
mod policies;
mod roles;
mod scale;
mod service;
mod settings;
mod tokens;
mod top;
mod validate;
mod violations;
mod watch;

use std::sync::Arc;

use tonic::service::Routes;

use self::auth::{Guard, Guarded};
pub use self::convert::{from_json as metadata_from_json, to_json as metadata_to_json};
use self::pb::client_service_server::ClientServiceServer;
use self::pb::plan_service_server::PlanServiceServer;
use self::pb::policy_service_server::PolicyServiceServer;
pub use self::service::Admin;
pub use self::settings::AdminSettings;
use crate::control::registry::Registry;
pub use crate::edge::pb::tollgate::v1 as pb;
use crate::store::LimitStore;

/// The services behind the admin listener, as health knows them.
pub const SERVICE_NAMES: [&str; 3] = [
    pb::client_service_server::SERVICE_NAME,
    pb::plan_service_server::SERVICE_NAME,
    pb::policy_service_server::SERVICE_NAME,
];

/// The largest message: a thousand clients with metadata, or a policy.
const MESSAGE_BYTES: usize = 16 << 20;

/// The services, for [`crate::edge::grpc::server::serve_admin`].
pub fn routes<R: Registry, S: LimitStore>(admin: Arc<Admin<R, S>>, guard: Guard) -> Guarded {
    let clients = ClientServiceServer::new(clients::Clients(Arc::clone(&admin)))
        .max_decoding_message_size(MESSAGE_BYTES);
    let plans = PlanServiceServer::new(plans::Plans(Arc::clone(&admin)))
        .max_decoding_message_size(MESSAGE_BYTES);
    let policies = PolicyServiceServer::new(policies::Policies(admin))
        .max_decoding_message_size(MESSAGE_BYTES);
    let routes = Routes::new(clients).add_service(plans).add_service(policies);
    Guarded { routes, guard }
}
