//! tollgate: a gRPC rate-limit decision service for Envoy and microservices.
//!
//! ```text
//!  Envoy / microservice
//!         | gRPC ShouldRateLimit                        operator: files, SIGHUP, HTTP, gRPC health
//!  transport/   decode, validate, deadline (protobuf ends here)         |
//!         v                                                             v
//!  limiter/     descriptors -> limits -> one Group -> layers       app, ops, telemetry
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
//! * [`admin`]: clients, policies and the kill switch, changed by operators while traffic flows.
//! * [`clients`]: limits of single clients, changed at run time.
//! * [`registry`]: where what operators change is kept.
//! * [`store`]: where counters live: the port and its adapters.

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
