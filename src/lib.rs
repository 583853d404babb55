//! tollgate: a gRPC rate-limit decision service for Envoy and microservices.
//!
//! ```text
//!  Envoy / microservice                               operator, files
//!         | gRPC ShouldRateLimit                          |
//!  edge/        grpc, http: decode, validate,       edge/admin: RPCs    control/: feeds, registry
//!         |     deadline (protobuf ends here)             |                 |
//!         v                                               +---> control/ <--+
//!  limiter/     descriptors -> limits -> one Group               |
//!         |     -> layers                                        v
//!         |   <------------------------------------  policy/, limits/: which limits apply
//!         v
//!  store/       memory | redis: one atomic step             redis/: how Redis is reached
//!         v
//!  domain/      pure: state, limit, hits, now -> reading; verdict
//! ```
//!
//! Dependencies point one way: `app -> edge -> control, limiter -> policy, limits, store -> redis, domain`.
//!
//! # Layout
//!
//! * [`domain`]: limits, the three algorithms, the decision of a whole request. Standard library only.
//! * [`policy`]: limits of rules: YAML files, compiled to a tree that requests are matched against.
//! * [`limits`]: limits of single clients, which override those of the policies.
//! * [`store`]: the store of counters: the port and its adapters.
//! * [`redis`]: how Redis is reached, for counters and for the registry.
//! * [`limiter`]: the use case, and the layers over the store.
//! * [`control`]: the only writer of what the limiter reads: policy files, the registry, and what follows them.
//! * [`edge`]: the protocols: gRPC for Envoy, gRPC for operators, HTTP.
//! * [`telemetry`]: metrics, logs, and text fit for them.
//! * `yaml`: YAML text to nodes with their places, for policies and settings.
//! * `settings`: the parts that sections of settings are made of; each room declares its own section.
//! * [`config`]: loads the sections.
//! * [`app`]: puts the parts together, starts and stops them.
//!
//! The binary adds the command line (`cli.rs`) and the load generator (`load/`).

pub mod app;
pub mod config;
pub mod control;
pub mod domain;
pub mod edge;
pub mod limiter;
pub mod limits;
pub mod policy;
pub mod redis;
mod settings;
pub mod store;
pub mod telemetry;
mod yaml;
