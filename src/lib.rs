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
//!         |   <------------------------------------  policy/, limits/: the limits
//!         v
//!  store/       memory | redis: one atomic step             redis/: access to Redis
//!         v
//!  domain/      pure: state, limit, hits, now -> reading; verdict
//! ```
//!
//! Dependencies point one way:
//! `app -> edge -> control, limiter -> policy, limits, store -> redis, domain`.
//!
//! # Layout
//!
//! * [`domain`]: limits, the algorithms, the decision of a whole request. Standard library only.
//! * [`policy`]: the limits of rules, from YAML files compiled to a tree that matches requests.
//! * [`limits`]: the limits of single clients, which override those of policies.
//! * [`store`]: the store of counters: the port and its adapters.
//! * [`redis`]: access to Redis for counters and the registry.
//! * [`limiter`]: the use case, and the layers over the store.
//! * [`adaptive`]: the controller of adaptive limits.
//! * [`control`]: the control plane. Follows policy files and the registry, and is the only writer
//!   of the state that the limiter reads.
//! * [`http2`]: HTTP/2 for gRPC. Pure: bytes in, bytes out.
//! * [`edge`]: the protocols: gRPC for Envoy, gRPC for operators, HTTP.
//! * [`telemetry`]: metrics, logs, traces, and safe text for them.
//! * [`events`]: the delivery of events of limits to a webhook.
//! * [`outward`]: connections to servers of operators: control plane, collector, webhook.
//! * [`tls`]: certificates, keys and authorities from files, for both sides of TLS.
//! * `yaml`: YAML text to nodes with their places, for policies and settings.
//! * `settings`: the building blocks of settings. Each module declares its own section.
//! * [`config`]: loads the sections.
//! * [`app`]: wires the parts, starts and stops them.
//! * [`verify`]: holds recorded calls against the promises of limits.
//!
//! The binary adds the command line (`cli/`) and the load generator (`load/`).

pub mod adaptive;
pub mod app;
pub mod config;
pub mod control;
pub mod domain;
pub mod edge;
pub mod events;
pub mod http2;
pub mod limiter;
pub mod limits;
pub mod outward;
pub mod policy;
pub mod redis;
mod settings;
pub mod store;
pub mod telemetry;
pub mod tls;
pub mod verify;
mod yaml;
