//! The limits that the test watches: one of each algorithm for each way in which limits change.

use tollgate::domain::Key;
use tollgate::edge::admin::pb::{Algorithm, Client, Limit, Unit};
use tollgate::verify::Promise;

use crate::support::operator::{client, limit};

/// The domain of the policy file.
pub const FILED: &str = "filed";
/// The domain of the policy that operators apply.
pub const APPLIED: &str = "applied";
/// The value of every watched descriptor.
pub const VALUE: &str = "v";

/// Requests a second of a limit that does not change, and the most of one that does.
pub const MOST: u32 = 60;
/// The least of one that changes.
pub const LEAST: u32 = 30;
/// The limit of a client that does not change. Its rule allows [`MOST`].
const OWN: u32 = 20;

const ALGORITHMS: [Algorithm; 3] =
    [Algorithm::SlidingWindow, Algorithm::TokenBucket, Algorithm::FixedWindow];

/// The way in which a limit changes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Change {
    /// It does not; the rules beside it do.
    Never,
    /// By the policy file.
    File,
    /// By the policy that operators apply.
    Policy,
    /// By a client's own limit, which is also removed and set to 0.
    Client,
    /// It does not, and is a client's own. A replica that has not read the clients exceeds it.
    Own,
}

impl Change {
    const ALL: [Self; 5] = [Self::Never, Self::File, Self::Policy, Self::Client, Self::Own];
}

/// A watched limit. It has one counter.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Watched {
    pub change: Change,
    algorithm: Algorithm,
}

impl Watched {
    pub fn all() -> Vec<Self> {
        let of = |change| ALGORITHMS.map(|algorithm| Self { change, algorithm });
        Change::ALL.into_iter().flat_map(of).collect()
    }

    pub fn domain(self) -> &'static str {
        if self.change == Change::Policy { APPLIED } else { FILED }
    }

    /// The key of its descriptor, such as `file_token_bucket`.
    pub fn key(self) -> String {
        format!("{:?}_{}", self.change, self.algorithm.as_str_name()).to_lowercase()
    }

    /// The largest limit that it ever has, as a promise.
    pub fn promise(self) -> Promise {
        let rate = if self.change == Change::Own { OWN } else { MOST };
        let name = self.algorithm.as_str_name().to_lowercase();
        let burst = self.burst(rate).map_or_else(String::new, |burst| format!(" burst {burst}"));
        format!("{name} {rate}/s{burst}").parse().unwrap()
    }

    /// Its rule in a policy, with this rate.
    pub fn rule(self, rate: u32) -> String {
        let (key, name) = (self.key(), self.algorithm.as_str_name());
        let burst = self.burst(rate).map_or_else(String::new, |burst| format!(", burst: {burst}"));
        format!(
            "  - {{key: {key}, rate_limit: \
             {{unit: second, requests_per_unit: {rate}, algorithm: {name}{burst}}}}}\n"
        )
    }

    /// Its client, with this rate; 0 denies every request.
    pub fn client(self, rate: u32) -> Client {
        let own = Limit {
            algorithm: self.algorithm.into(),
            burst: self.burst(rate).unwrap_or_default(),
            ..limit(rate, Unit::Second)
        };
        client(self.domain(), (&self.key(), VALUE), own)
    }

    /// Its client, if that does not change.
    pub fn own(self) -> Option<Client> {
        (self.change == Change::Own).then(|| self.client(OWN))
    }

    /// The slot of its counter in a cluster.
    pub fn slot(self) -> u16 {
        Key::new(format!("{{{}|{}={VALUE}}}", self.domain(), self.key()).into_bytes()).slot()
    }

    /// The capacity of a bucket is a third of what it gets in a second.
    fn burst(self, rate: u32) -> Option<u32> {
        (self.algorithm == Algorithm::TokenBucket).then_some(rate / 3)
    }
}
