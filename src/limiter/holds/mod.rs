//! Holds: an estimate is taken when a request is admitted, and corrected when its cost is known.
//!
//! ```text
//! request --plan--> descriptors that ask ----> resolve, layers --> charged --issue--> handle
//!                   descriptors with a handle --settle--> amendments of the store, once
//! ```
//! * `handle`: the text that a caller brings back.
//! * `plan`: the parts of a request in a domain with holds.
//! * `issue`: the handle of what was charged, and its end if nobody hears of it.
//! * `changes`: the changes that settle a hold, and what lets them take effect once.
//! * `costs`: what a request has cost each limit, and what is learned from it.
//! * `settle`: the way of the changes to the store.
//! * `renew`: a hold that lasts longer, under another handle.
//! * `unnamed`: holds without a handle.
//! * `direct`: ends and renewals that a caller asks for itself.
//!
//! A descriptor with the entry `hold` is never an admission and charges as none. With a handle that
//! is not good it is over its limit: whoever maps a header of a client to that entry has built no
//! way around a limit.

mod changes;
mod costs;
mod direct;
mod handle;
mod issue;
mod plan;
mod renew;
mod settle;
pub(super) mod unnamed;

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;

pub(super) use self::costs::{CostSamples, costs};
pub use self::direct::{BadEnd, End, Ending, Renewed};
pub use self::handle::{Handle, HandleKey, HeldClaim};
pub use self::issue::Issued;
pub(super) use self::issue::issue;
pub(super) use self::plan::{Ended, Plan, Role, plan};
pub(super) use self::settle::{Dropped, Sent, Settlements};
use crate::settings::{Secret, section};
use crate::telemetry::metrics::HoldMetrics;

section! {
    /// Holds: hits that are reserved, and settled by what a request has cost.
    pub struct HoldSettings in "holds" {
        /// Secret that signs handles, the same on all replicas. Unset = the first replica makes
        /// one, another one follows each day, and all read it where operators' changes are kept.
        secret: Option<Secret> = "",
        /// Maximum of settled holds that the memory store remembers. Beyond it nothing is given
        /// back.
        max_settled: usize = "1000000" in 1..=100_000_000,
    }
}

/// The number of the key that is made of a setting.
pub const KEY_OF_SETTING: u8 = 0;

/// The number of the key of a process that knows no other yet.
const KEY_OF_PROCESS: u8 = 255;

/// The keys of handles, and the counts of holds.
pub struct Holds {
    keys: ArcSwap<Keys>,
    /// The number of this process, in handles of what it has decided without the store.
    process: u32,
    /// The counts.
    pub(super) metrics: Arc<HoldMetrics>,
}

/// Keys by number.
#[derive(Clone, Debug)]
struct Keys {
    current: HandleKey,
    others: Vec<HandleKey>,
}

impl fmt::Debug for Holds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Holds").field("process", &self.process).finish_non_exhaustive()
    }
}

impl Holds {
    /// Holds by `settings`. Without a secret this process signs with a key of its own, until it
    /// [learns](Self::set_keys) others.
    pub fn new(settings: &HoldSettings, metrics: Arc<HoldMetrics>) -> Self {
        let current = match &settings.secret {
            Some(secret) => HandleKey::new(KEY_OF_SETTING, secret.expose().as_bytes()),
            None => HandleKey::new(KEY_OF_PROCESS, &random_secret()),
        };
        let keys = ArcSwap::from_pointee(Keys { current, others: Vec::new() });
        Self { keys, process: fastrand::u32(..), metrics }
    }

    /// Signs with `current` from now on, and knows `others`. Handles that this process has signed
    /// with a key of its own stay good.
    pub fn set_keys(&self, current: HandleKey, others: Vec<HandleKey>) {
        let before = self.keys.load();
        let own = before.others.iter().chain([&before.current]);
        let own = own.filter(|key| key.id() == KEY_OF_PROCESS).cloned();
        let others = others.into_iter().chain(own).collect();
        self.keys.store(Arc::new(Keys { current, others }));
    }

    /// The hold of `text`, and the fingerprints of its counters by the key that has signed it.
    fn read(&self, domain: &[u8], text: &[u8]) -> Option<(Handle, HandleKey)> {
        let number = handle::key_of(text)?;
        let keys = self.keys.load();
        let mut all = std::iter::once(&keys.current).chain(&keys.others);
        let key = all.find(|key| key.id() == number)?;
        Some((key.read(domain, text)?, key.clone()))
    }

    /// The key that signs now. The counters of a handle are named by the key that signs it, so a
    /// handle is made with one of these, whatever follows meanwhile.
    pub fn signing(&self) -> HandleKey {
        self.keys.load().current.clone()
    }

    /// True if the key is that of a setting, the same on all replicas by itself.
    pub fn has_key_of_setting(&self) -> bool {
        self.keys.load().current.id() == KEY_OF_SETTING
    }
}

/// 32 random bytes of the operating system.
///
/// # Panics
/// Without entropy no secret can be made, and TLS does not work either.
#[expect(clippy::expect_used, reason = "a guessable secret must not be made")]
pub fn random_secret() -> [u8; 32] {
    let (mut secret, random) = ([0; 32], rustls::crypto::ring::default_provider().secure_random);
    random.fill(&mut secret).expect("the operating system gives random bytes");
    secret
}
