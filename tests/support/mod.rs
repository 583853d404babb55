//! Real parts for tests: Redis, tollgate, Envoy, as processes on free ports of loopback.

#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod grpc;
pub mod http;
pub mod redis;
pub mod tollgate;
