//! How long a start waits for a registry: while more of it comes, not while it is silent. On a clock of the test's own, so
//! the registry is one that only takes its time.

use std::sync::Arc;
use std::time::Duration;

use tollgate::control::follower::DEFAULT_POLL;
use tollgate::control::registry::{
    Change, Delta, Mark, Record, Registry, RegistryError, Update, Written,
};
use tollgate::domain::Timestamp;

use super::map::{follow, key};

const PATIENCE: Duration = Duration::from_secs(1);
const RECORDS: u64 = 5;

/// A registry of some records, each of which takes this long to come.
struct Slow(Duration);

impl Registry for Slow {
    async fn write(&self, _: Vec<Change>) -> Result<Written, RegistryError> {
        unreachable!("nothing is written")
    }

    async fn read(&self, _: &[u8]) -> Result<Option<Record>, RegistryError> {
        Ok(None)
    }

    async fn newest(&self) -> Result<Mark, RegistryError> {
        Ok(Mark { revision: RECORDS, tag: RECORDS })
    }

    async fn since(&self, mark: Mark) -> Result<Delta, RegistryError> {
        Ok(Delta::Changes { mark, entries: Vec::new() })
    }

    async fn scan(&self, mut tell: impl FnMut(Vec<Update>) + Send) -> Result<(), RegistryError> {
        for revision in 1..=RECORDS {
            tokio::time::sleep(self.0).await;
            let record = Record { value: key("value"), revision };
            tell(vec![(key(revision.to_string()), Some(record))]);
        }
        Ok(())
    }

    async fn now(&self) -> Result<Timestamp, RegistryError> {
        unreachable!("nothing expires")
    }

    async fn probe(&self) -> Result<(), RegistryError> {
        Ok(())
    }

    async fn news(&self) {
        std::future::pending::<()>().await;
    }
}

#[tokio::test(start_paused = true)]
async fn start_waits_for_all_of_a_registry_that_goes_on_talking() {
    let following = follow(&Arc::new(Slow(PATIENCE * 9 / 10)), DEFAULT_POLL);
    assert!(following.follower.tried(PATIENCE).await);
    assert_eq!(following.map.len() as u64, RECORDS);
    assert!(following.follower.progress().synced);
}

#[tokio::test(start_paused = true)]
async fn start_goes_on_without_a_registry_that_falls_silent() {
    let following = follow(&Arc::new(Slow(PATIENCE * 11 / 10)), DEFAULT_POLL);
    assert!(!following.follower.tried(PATIENCE).await);
    assert!(!following.follower.progress().tried);
    following.follower.synced().await;
    assert_eq!(following.map.len() as u64, RECORDS, "the rest is followed all the same");
}
