//! The keys that sign handles of holds, the same on all replicas.
//!
//! The first replica that needs one makes it; a new one follows every day. A new key signs after
//! some seconds, when every replica has read it, and is known for longer than any hold lasts.
//!
//! One record has all keys, oldest first: `{"keys": [{"id": 1, "secret": "..", "made_at": 0}]}`,
//! the secret in base64 and the time in microseconds since 1970, on the clock of the registry.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::record::HOLD_KEYS;
use super::registry::{Change, Expect, Record, Registry, RegistryError};
use crate::domain::Timestamp;
use crate::limiter::holds::{HandleKey, Holds, random_secret};

/// The interval between two looks. Each costs the registry two reads.
const EVERY: Duration = Duration::from_secs(5);

/// The interval in which it is noticed that policies hold.
const NOTICE: Duration = Duration::from_millis(200);

/// The longest wait for the keys at the start.
const PATIENCE: Duration = Duration::from_secs(1);

/// The age at which a key signs: every replica has read it.
const ACTIVE_AFTER: Duration = Duration::from_secs(15);

/// The age at which another key is made.
const RENEWED_AFTER: Duration = Duration::from_hours(24);

/// The age at which a key is forgotten: a day of signing, and the longest hold.
const FORGOTTEN_AFTER: Duration = Duration::from_hours(49);

/// Numbers of keys; those outside belong to settings and processes.
const LAST_ID: u8 = 200;

#[derive(Debug, Default, Deserialize, Serialize)]
struct Stored {
    keys: Vec<StoredKey>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct StoredKey {
    id: u8,
    secret: String,
    made_at: u64,
}

/// Keeps the keys of `holds` until it is dropped; nothing is read while no policy holds.
pub async fn run<R: Registry>(registry: &R, holds: &Holds, have_holds: impl Fn() -> bool) {
    loop {
        while !have_holds() {
            tokio::time::sleep(NOTICE).await;
        }
        // The follower reports that the registry cannot be reached.
        drop(refresh(registry, holds).await);
        tokio::time::sleep(EVERY).await;
    }
}

/// Takes the keys before the first request, as far as the registry can be reached.
pub async fn begin<R: Registry>(registry: &R, holds: &Holds) {
    drop(tokio::time::timeout(PATIENCE, refresh(registry, holds)).await);
}

/// Gives `holds` the keys of `registry`, where one is made if there is none that is new enough.
///
/// # Errors
/// When the registry does not answer; the keys stay as they are.
pub async fn refresh<R: Registry>(registry: &R, holds: &Holds) -> Result<(), RegistryError> {
    loop {
        let now = registry.now().await?;
        let record = registry.read(HOLD_KEYS).await?;
        let mut stored = read(record.as_ref());
        if !is_due(&stored, now) {
            give(&stored, holds, now);
            return Ok(());
        }
        add(&mut stored, now);
        let expect = record.map_or(Expect::Absent, |record| Expect::Revision(record.revision));
        let value = serde_json::to_vec(&stored).unwrap_or_default();
        let key = Bytes::from_static(HOLD_KEYS);
        let change = Change { key, expect, value: Some(value.into()) };
        match registry.write(vec![change]).await {
            // Another replica was first.
            Ok(_) | Err(RegistryError::Conflict { .. }) => {}
            Err(error) => return Err(error),
        }
    }
}

/// The keys of a record. One that cannot be read counts as none, and is replaced.
fn read(record: Option<&Record>) -> Stored {
    let Some(record) = record else { return Stored::default() };
    serde_json::from_slice(&record.value).unwrap_or_else(|error| {
        tracing::warn!(%error, "the keys of holds cannot be read; others are made");
        Stored::default()
    })
}

fn age(key: &StoredKey, now: Timestamp) -> Duration {
    Duration::from_micros(now.micros_since(Timestamp::from_micros(key.made_at)))
}

fn is_due(stored: &Stored, now: Timestamp) -> bool {
    stored.keys.last().is_none_or(|newest| age(newest, now) >= RENEWED_AFTER)
}

fn add(stored: &mut Stored, now: Timestamp) {
    stored.keys.retain(|key| age(key, now) < FORGOTTEN_AFTER);
    let id = stored.keys.last().map_or(1, |newest| newest.id % LAST_ID + 1);
    let secret = STANDARD_NO_PAD.encode(random_secret());
    stored.keys.push(StoredKey { id, secret, made_at: now.as_micros() });
}

fn give(stored: &Stored, holds: &Holds, now: Timestamp) {
    let is_active = |key: &StoredKey| age(key, now) >= ACTIVE_AFTER;
    // The first key of all signs at once: there is no other.
    let current = stored.keys.iter().rposition(is_active).unwrap_or_default();
    let key = |key: &StoredKey| HandleKey::new(key.id, key.secret.as_bytes());
    let mut keys: Vec<HandleKey> = stored.keys.iter().map(key).collect();
    if current < keys.len() {
        let current = keys.remove(current);
        holds.set_keys(current, keys);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::registry::DEFAULT_LOG_CHANGES;
    use crate::control::registry::embedded::EmbeddedRegistry;
    use crate::limiter::holds::HoldSettings;

    const DAY: u64 = 24 * 3_600 * 1_000_000;

    fn ids(stored: &Stored) -> Vec<u8> {
        stored.keys.iter().map(|key| key.id).collect()
    }

    #[test]
    fn key_is_made_each_day_and_forgotten_after_the_longest_hold() {
        let mut stored = Stored::default();
        let at = |micros| Timestamp::from_micros(micros);
        for day in 0..5 {
            assert!(is_due(&stored, at(day * DAY)));
            add(&mut stored, at(day * DAY));
            assert!(!is_due(&stored, at(day * DAY + DAY - 1)));
        }
        assert_eq!(ids(&stored), [3, 4, 5], "two days, and the newest");
        stored.keys.last_mut().unwrap().id = LAST_ID;
        add(&mut stored, at(5 * DAY));
        assert_eq!(ids(&stored), [4, LAST_ID, 1]);
    }

    #[tokio::test]
    async fn replicas_have_the_same_keys_and_an_unreadable_record_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let registry = EmbeddedRegistry::new(dir.path().join("registry"), DEFAULT_LOG_CHANGES);
        let key = Bytes::from_static(HOLD_KEYS);
        let damaged =
            Change { key, expect: Expect::Anything, value: Some(Bytes::from_static(b"{")) };
        registry.write(vec![damaged]).await.unwrap();
        let holds =
            [(); 2].map(|()| Holds::new(&HoldSettings::default(), std::sync::Arc::default()));
        for holds in &holds {
            refresh(&registry, holds).await.unwrap();
        }
        let key = crate::domain::Key::new(&b"k"[..]);
        let [one, other] = holds.each_ref().map(|holds| holds.signing().counter(&key));
        assert_eq!(one, other);
        let stored = read(registry.read(HOLD_KEYS).await.unwrap().as_ref());
        assert_eq!(ids(&stored), [1]);
    }
}
