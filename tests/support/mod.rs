//! Real parts for tests: Redis, tollgate, sample backends, Envoy, as processes on free ports of loopback, and a
//! caller of HTTP.

#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod backend;
pub mod browser;
pub mod caller;
pub mod certs;
pub mod cluster;
pub mod engines;
pub mod envoy;
pub mod grpc;
pub mod http;
pub mod operator;
pub mod proxy;
pub mod redis;
pub mod sentinel;
pub mod tls;
pub mod tollgate;
pub mod tools;
pub mod wait;
