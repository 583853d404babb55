//! tollgate: a gRPC rate-limit decision service for Envoy and microservices.
//!
//! ```text
//!  Envoy / microservice                                 operator
//!         | gRPC ShouldRateLimit                            | gRPC, files, SIGHUP, HTTP
//!  transport/   decode, validate, deadline             admin/   clients, policies, mode
//!         |     (protobuf ends here)                        |
//!         v                                            registry/   kept in Redis or in a file,
//!  limiter/     descriptors -> limits -> one Group          |      followed by every replica
//!         |     -> layers                                   v
//!         |   <---------------------------------  policy/, clients/   which limits apply
//!         v
//!  store/       memory | redis: what one atomic step can reach
//!         v
//!  domain/      pure: state, limit, hits, now -> reading; verdict
//! ```
//!
//! Dependencies point one way: `app -> transport, admin, ops -> limiter -> policy + clients + store -> domain`.
//!
//! # Layout
//!
//! * [`domain`]: limits, the three algorithms, the decision of a whole request. Standard library only.
//! * [`policy`]: which limits apply: YAML files, compiled; reload.
//! * [`clients`]: limits of single clients, which go before those of the policies.
//! * [`store`]: where counters live: the port and its adapters.
//! * [`limiter`]: the use case, and the layers over the store.
//! * [`transport`]: the gRPC edge.
//! * [`registry`]: where what operators change at run time is kept, and how replicas follow it.
//! * [`admin`]: the management edge: clients, policies, the kill switch, explanations.
//! * [`ops`]: the HTTP edge: JSON, health, metrics.
//! * [`telemetry`]: metrics, logs, and text fit for them.
//! * [`config`], [`cli`]: settings and the command line.
//! * [`load`]: the load generator.
//! * [`app`]: puts the parts together, starts and stops them.

pub mod admin;
pub mod app;
pub mod cli;
pub mod clients;
pub mod config;
pub mod domain;
pub mod limiter;
pub mod load;
pub mod ops;
pub mod policy;
pub mod registry;
pub mod store;
pub mod telemetry;
pub mod transport;
