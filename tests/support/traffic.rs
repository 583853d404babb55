//! The policy `edge`, with a rule of every kind, and random clients and requests of it: the same seed gives the same ones.

use tollgate::edge::admin::pb::{Algorithm, Client, Entry, Limit, Unit};
use tollgate::edge::pb::rate_limit_descriptor::{self, RateLimitOverride};
use tollgate::edge::pb::{RateLimitDescriptor, RateLimitRequest};

use crate::random::Random;

/// With limits per minute.
pub const POLICY: &str = "
domain: edge
descriptors:
  - key: api_key
    rate_limit: {unit: minute, requests_per_unit: 3, algorithm: fixed_window}
    metadata: {tier: free}
    descriptors:
      - key: path
        rate_limit: {unit: minute, requests_per_unit: 2}
  - {key: bucket, rate_limit: {unit: minute, requests_per_unit: 4, algorithm: token_bucket}}
  - {key: secret, sensitive: true, rate_limit: {unit: minute, requests_per_unit: 3}}
  - {key: shadowed, shadow_mode: true, rate_limit: {unit: minute, requests_per_unit: 1}}
  - {key: file, value: 'f/*', share_threshold: true, rate_limit: {unit: minute, requests_per_unit: 1}}
  - {key: quota, quota_mode: true, rate_limit: {unit: minute, requests_per_unit: 2}}
  - key: special
    rate_limit: {unit: minute, requests_per_unit: 5, name: special, replaces: [{name: general}]}
  - {key: general, rate_limit: {unit: minute, requests_per_unit: 1, name: general}}
";

const KEYS: [&str; 8] =
    ["api_key", "bucket", "secret", "shadowed", "file", "quota", "general", "unheard"];
const VALUES: [&str; 4] = ["a", "b", "f/1", "c"];

/// Who makes them up.
pub struct Traffic {
    pub random: Random,
    /// Of the limits of clients.
    unit: Unit,
    /// Of the limits that requests bring along; some mean nothing.
    override_units: [i32; 4],
}

impl Traffic {
    /// Limits per second and minute.
    pub fn quick(seed: u64) -> Self {
        Self { random: Random::new(seed), unit: Unit::Minute, override_units: [0, 1, 2, 9] }
    }

    /// Limits per month and year, in which a test sees no time pass. For the policy of [`slow_policy`].
    pub fn slow(seed: u64) -> Self {
        Self { random: Random::new(seed), unit: Unit::Year, override_units: [0, 5, 6, 9] }
    }

    fn pairs(&mut self) -> Vec<(&'static str, &'static str)> {
        let random = &mut self.random;
        let mut pairs = vec![(random.pick(&KEYS), random.pick(&VALUES))];
        if random.chance(20) {
            pairs.push(("path", random.pick(&VALUES)));
        }
        pairs
    }

    pub fn client(&mut self) -> Client {
        let algorithms = [
            Algorithm::Unspecified,
            Algorithm::SlidingWindow,
            Algorithm::TokenBucket,
            Algorithm::FixedWindow,
        ];
        let limit = if self.random.chance(10) {
            Limit { unlimited: true, ..Limit::default() }
        } else {
            Limit {
                algorithm: self.random.pick(&algorithms).into(),
                requests_per_unit: Some(self.random.up_to(5) as u32),
                unit: self.unit.into(),
                ..Limit::default()
            }
        };
        let entry = |(key, value): (&str, &str)| Entry {
            key: key.into(),
            value: value.into(),
            hashed: false,
        };
        let entries = self.pairs().into_iter().map(entry).collect();
        let random = &mut self.random;
        Client {
            domain: "edge".to_owned(),
            entries,
            limits: vec![limit],
            shadow_mode: random.chance(30).then(|| random.chance(50)),
            quota_mode: random.chance(30).then(|| random.chance(50)),
            ..Client::default()
        }
    }

    /// With one to three descriptors.
    pub fn request(&mut self) -> RateLimitRequest {
        let count = 1 + self.random.up_to(2);
        RateLimitRequest {
            domain: "edge".as_bytes().into(),
            descriptors: (0..count).map(|_| self.descriptor()).collect(),
            hits_addend: 0,
        }
    }

    fn descriptor(&mut self) -> RateLimitDescriptor {
        let entry = |(key, value): (&'static str, &'static str)| rate_limit_descriptor::Entry {
            key: key.as_bytes().into(),
            value: value.as_bytes().into(),
        };
        let entries = self.pairs().into_iter().map(entry).collect();
        let random = &mut self.random;
        let over = RateLimitOverride {
            unit: random.pick(&self.override_units),
            requests_per_unit: random.up_to(3) as u32,
            unit_multiplier: None,
        };
        RateLimitDescriptor {
            entries,
            limit: random.chance(15).then_some(over),
            hits_addend: random.chance(30).then(|| random.up_to(3)),
            is_negative_hits: random.chance(5),
        }
    }
}

/// [`POLICY`], with limits per year.
pub fn slow_policy() -> String {
    POLICY.replace("minute", "year")
}
