//! The requests of a run: values of a key, drawn from the distribution.

use bytes::Bytes;

use super::{LoadArgs, Spread};
use tollgate::edge::pb::rate_limit_descriptor::Entry;
use tollgate::edge::pb::{RateLimitDescriptor, RateLimitRequest};
use tollgate::verify::key_of;

/// A generator of requests.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    domain: Bytes,
    key: Bytes,
    values: Vec<Bytes>,
    /// The cumulative distribution for zipf; empty for uniform.
    shares: Vec<f64>,
    descriptors: usize,
}

impl Plan {
    pub(super) fn new(args: &LoadArgs) -> Self {
        let shares = match args.spread {
            Spread::Uniform => Vec::new(),
            Spread::Zipf => zipf(args.keys),
        };
        Self {
            domain: args.domain.clone().into(),
            key: args.key.clone().into(),
            values: (0..args.keys).map(|i| format!("load-{i}").into()).collect(),
            shares,
            descriptors: args.descriptors,
        }
    }

    /// Draws the positions of the values of the next request, one per descriptor.
    pub(super) fn draw(&self, random: &mut fastrand::Rng) -> Vec<usize> {
        (0..self.descriptors).map(|_| self.pick(random)).collect()
    }

    /// The request of these values.
    pub(super) fn request(&self, values: &[usize]) -> RateLimitRequest {
        let descriptor = |value: &usize| {
            let value = self.values.get(*value).cloned().unwrap_or_default();
            let entries = vec![Entry { key: self.key.clone(), value }];
            RateLimitDescriptor { entries, ..RateLimitDescriptor::default() }
        };
        RateLimitRequest {
            domain: self.domain.clone(),
            descriptors: values.iter().map(descriptor).collect(),
            hits_addend: 0,
        }
    }

    /// The key of each value in a record of calls.
    pub(super) fn keys(&self) -> Vec<String> {
        let key = |value: &Bytes| key_of(&self.domain, [(&self.key[..], &value[..])]);
        self.values.iter().map(key).collect()
    }

    fn pick(&self, random: &mut fastrand::Rng) -> usize {
        if self.shares.is_empty() {
            return random.usize(..self.values.len().max(1));
        }
        let at = random.f64();
        self.shares.partition_point(|share| *share <= at)
    }
}

fn zipf(keys: usize) -> Vec<f64> {
    let weights = (1..=keys).map(|rank| 1.0 / rank as f64);
    let total: f64 = weights.clone().sum();
    weights
        .scan(0.0, |sum, weight| {
            *sum += weight / total;
            Some(*sum)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(spread: Spread) -> Plan {
        let shares = if spread == Spread::Zipf { zipf(100) } else { Vec::new() };
        let values = (0..100).map(|i| i.to_string().into()).collect();
        Plan { domain: Bytes::new(), key: Bytes::new(), values, shares, descriptors: 1 }
    }

    fn counts(plan: &Plan) -> Vec<usize> {
        let mut random = fastrand::Rng::with_seed(1);
        let mut counts = vec![0; 100];
        for _ in 0..100_000 {
            counts[plan.pick(&mut random)] += 1;
        }
        counts
    }

    #[test]
    fn zipf_favours_the_first_key_and_uniform_none() {
        let zipf = counts(&plan(Spread::Zipf));
        assert!((1.7..2.3).contains(&(zipf[0] as f64 / zipf[1] as f64)), "{zipf:?}");
        assert!((8.0..12.0).contains(&(zipf[0] as f64 / zipf[9] as f64)), "{zipf:?}");
        let uniform = counts(&plan(Spread::Uniform));
        assert!(uniform.iter().all(|count| (800..1_200).contains(count)), "{uniform:?}");
    }
}
