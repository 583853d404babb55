//! The requests of a run: values of a key, drawn from the distribution.
//!
//! The fields of a message may be encoded apart from each other, so each descriptor is encoded once
//! and a request is a concatenation.

use bytes::Bytes;
use prost::Message as _;

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
    /// The field of the domain, encoded.
    head: Vec<u8>,
    /// The field of the descriptor of each value, encoded.
    fields: Vec<Box<[u8]>>,
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
        let values = (0..args.keys).map(|i| format!("load-{i}").into()).collect();
        let (domain, key) = (args.domain.clone().into(), args.key.clone().into());
        Self::of(domain, key, values, shares, args.descriptors)
    }

    fn of(
        domain: Bytes,
        key: Bytes,
        values: Vec<Bytes>,
        shares: Vec<f64>,
        descriptors: usize,
    ) -> Self {
        let field = |value: &Bytes| {
            let entries = vec![Entry { key: key.clone(), value: value.clone() }];
            let descriptor = RateLimitDescriptor { entries, ..RateLimitDescriptor::default() };
            let descriptors = vec![descriptor];
            let request = RateLimitRequest { descriptors, ..RateLimitRequest::default() };
            request.encode_to_vec().into_boxed_slice()
        };
        let fields = values.iter().map(field).collect();
        let head = RateLimitRequest { domain: domain.clone(), ..RateLimitRequest::default() };
        let head = head.encode_to_vec();
        Self { domain, key, values, head, fields, shares, descriptors }
    }

    /// Draws the positions of the values of the next request into `values`, one per descriptor.
    pub(super) fn draw(&self, random: &mut fastrand::Rng, values: &mut Vec<usize>) {
        values.clear();
        values.extend((0..self.descriptors).map(|_| self.pick(random)));
    }

    /// Appends the request of these values to `out`.
    pub(super) fn write(&self, values: &[usize], out: &mut Vec<u8>) {
        out.extend_from_slice(&self.head);
        let fields = values.iter().filter_map(|value| self.fields.get(*value));
        fields.for_each(|field| out.extend_from_slice(field));
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
        Plan::of("d".into(), "k".into(), values, shares, 2)
    }

    #[test]
    fn request_has_the_domain_and_each_descriptor() {
        let mut bytes = Vec::new();
        plan(Spread::Uniform).write(&[7, 99], &mut bytes);
        let request = RateLimitRequest::decode(&bytes[..]).unwrap();
        assert_eq!(request.domain, "d");
        let entries = |value: &str| vec![Entry { key: "k".into(), value: value.to_owned().into() }];
        let sent: Vec<_> = request.descriptors.into_iter().map(|sent| sent.entries).collect();
        assert_eq!(sent, [entries("7"), entries("99")]);
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
