//! The registry that the settings name: in Redis or in a file. Nothing is decided here but which.

use std::future::Future;

use bytes::Bytes;
use futures_util::future::Either;

use super::embedded::EmbeddedRegistry;
use super::redis::RedisRegistry;
use super::{Change, Delta, Mark, Record, Registry, RegistryError, Update, Written};
use crate::domain::Timestamp;

/// One of the two.
#[derive(Debug)]
pub enum AnyRegistry {
    /// Shared by every replica that uses the same Redis.
    Redis(Box<RedisRegistry>),
    /// Of this process alone.
    Embedded(EmbeddedRegistry),
}

impl Registry for AnyRegistry {
    async fn write(&self, changes: Vec<Change>) -> Result<Written, RegistryError> {
        match self {
            Self::Redis(registry) => registry.write(changes).await,
            Self::Embedded(registry) => registry.write(changes).await,
        }
    }

    async fn read(&self, key: &[u8]) -> Result<Option<Record>, RegistryError> {
        match self {
            Self::Redis(registry) => registry.read(key).await,
            Self::Embedded(registry) => registry.read(key).await,
        }
    }

    async fn newest(&self) -> Result<Mark, RegistryError> {
        match self {
            Self::Redis(registry) => registry.newest().await,
            Self::Embedded(registry) => registry.newest().await,
        }
    }

    async fn since(&self, mark: Mark) -> Result<Delta, RegistryError> {
        match self {
            Self::Redis(registry) => registry.since(mark).await,
            Self::Embedded(registry) => registry.since(mark).await,
        }
    }

    async fn scan(&self, each: impl FnMut(Vec<Update>) + Send) -> Result<(), RegistryError> {
        match self {
            Self::Redis(registry) => registry.scan(each).await,
            Self::Embedded(registry) => registry.scan(each).await,
        }
    }

    async fn now(&self) -> Result<Timestamp, RegistryError> {
        match self {
            Self::Redis(registry) => registry.now().await,
            Self::Embedded(registry) => registry.now().await,
        }
    }

    async fn probe(&self) -> Result<(), RegistryError> {
        match self {
            Self::Redis(registry) => registry.probe().await,
            Self::Embedded(registry) => registry.probe().await,
        }
    }

    async fn beat(&self, id: u128) -> Result<Vec<u128>, RegistryError> {
        match self {
            Self::Redis(registry) => registry.beat(id).await,
            Self::Embedded(registry) => registry.beat(id).await,
        }
    }

    async fn leave(&self, id: u128) -> Result<(), RegistryError> {
        match self {
            Self::Redis(registry) => registry.leave(id).await,
            Self::Embedded(registry) => registry.leave(id).await,
        }
    }

    fn is_shared(&self) -> bool {
        matches!(self, Self::Redis(_))
    }

    async fn post(&self, second: u64, id: u128, seen: Bytes) -> Result<(), RegistryError> {
        match self {
            Self::Redis(registry) => registry.post(second, id, seen).await,
            Self::Embedded(registry) => registry.post(second, id, seen).await,
        }
    }

    async fn posts(&self, second: u64) -> Result<Vec<(u128, Bytes)>, RegistryError> {
        match self {
            Self::Redis(registry) => registry.posts(second).await,
            Self::Embedded(registry) => registry.posts(second).await,
        }
    }

    /// Counts from the call on, not from the first poll.
    fn news(&self) -> impl Future<Output = ()> + Send {
        match self {
            Self::Redis(registry) => Either::Left(registry.news()),
            Self::Embedded(registry) => Either::Right(registry.news()),
        }
    }
}
