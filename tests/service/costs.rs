//! Costs over the real binary: kinds that count by their weights, and estimates that are learned;
//! on both stores.

use tollgate::edge::admin::pb::explain_response::Counter;
use tollgate::edge::pb::RateLimitRequest;
use tollgate::edge::pb::rate_limit_response::Code::Ok as OK;
use tollgate::edge::pb::tollgate::v1 as pb;
use tollgate::edge::pb::tollgate::v1::hold_service_client::HoldServiceClient;
use tollgate::edge::pb::tollgate::v1::settle_response::State;
use tonic::transport::Channel;

use crate::stores::each_store;
use crate::support::operator::{self, Operator};
use crate::support::tollgate::{Tollgate, descriptor};

const POLICY: &str = "
domain: llm
descriptors:
  - key: user
    rate_limits:
      - {name: tokens, algorithm: fixed_window, unit: day, requests_per_unit: 1000,
         hold: {ttl: 1m, estimate: {default: 100, max: 400}},
         cost: {input: 1, output: 4, cached: 1/10}}
      - {name: spent, algorithm: fixed_window, unit: week, requests_per_unit: 1000, cost: {output: 2}}
      - {name: calls, algorithm: sliding_window, unit: day, requests_per_unit: 1000, cost: 1}
  - key: learner
    rate_limit: {name: tokens, algorithm: fixed_window, unit: day, requests_per_unit: 100000,
                 hold: {ttl: 1m, estimate: {default: learned, percentile: 90, max: 400}}}
";

/// The kinds of a request, and the hits of each.
type Parts<'a> = &'a [(Option<&'a str>, Option<u64>)];

/// A caller, and an operator who looks at its counters.
struct Caller {
    entry: (&'static str, &'static str),
    holds: HoldServiceClient<Channel>,
    operator: Operator,
}

impl Caller {
    async fn new(entry: (&'static str, &'static str), tollgate: &Tollgate) -> Self {
        let holds = HoldServiceClient::new(Tollgate::channel(tollgate.at.grpc).await);
        Self { entry, holds, operator: Operator::of(tollgate).await }
    }

    fn request(&self, parts: Parts<'_>) -> RateLimitRequest {
        let descriptors = parts.iter().map(|(kind, hits)| self.descriptor(*kind, *hits));
        RateLimitRequest {
            domain: b"llm".to_vec().into(),
            descriptors: descriptors.collect(),
            hits_addend: 0,
        }
    }

    fn descriptor(
        &self,
        kind: Option<&str>,
        hits_addend: Option<u64>,
    ) -> tollgate::edge::pb::RateLimitDescriptor {
        let kind = kind.map(|kind| ("kind", kind));
        let entries: Vec<_> = [self.entry].into_iter().chain(kind).collect();
        tollgate::edge::pb::RateLimitDescriptor { hits_addend, ..descriptor(&entries) }
    }

    async fn reserve(&mut self, parts: Parts<'_>) -> String {
        let request = Some(self.request(parts));
        let answer = self.holds.reserve(pb::ReserveRequest { request }).await.unwrap().into_inner();
        let response = answer.response.unwrap();
        assert_eq!(response.overall_code(), OK);
        assert_eq!(response.statuses.len(), parts.len());
        answer.handle
    }

    async fn settle(&mut self, handle: &str, parts: Parts<'_>) -> State {
        let usage = parts.iter().map(|(kind, hits)| {
            let descriptor = Some(self.descriptor(*kind, None));
            pb::Usage { descriptor, hits: *hits }
        });
        let (domain, handle, usage) = ("llm".into(), handle.into(), usage.collect());
        let request = pb::SettleRequest { domain, handle, usage, outcome: None };
        self.holds.settle(request).await.unwrap().into_inner().state()
    }

    /// The limits of a request with these parts, as they are explained.
    async fn limits(&self, parts: Parts<'_>) -> Vec<Counter> {
        let told = self.operator.explain(self.request(parts)).await;
        assert_eq!(told.descriptors.len(), parts.len());
        assert!(told.descriptors.iter().all(|one| one.counters == told.descriptors[0].counters));
        told.descriptors[0].counters.clone()
    }

    /// The hits that are used of each limit.
    async fn used<const N: usize>(&self) -> [u64; N] {
        // A hold takes at least one, and `calls` one of each request.
        let limits = self.limits(&[(None, Some(0))]).await;
        let used = limits.iter().map(|counter| {
            let limit = u64::from(counter.limit.as_ref().unwrap().requests_per_unit());
            limit - counter.remaining() - u64::from(counter.estimate.is_some())
        });
        used.collect::<Vec<_>>().try_into().unwrap()
    }

    /// The estimate for a request that states nothing, and its source.
    async fn estimate(&self) -> (u64, String) {
        let limits = self.limits(&[(None, None)]).await;
        (limits[0].estimate.unwrap(), limits[0].estimate_source.clone())
    }
}

#[tokio::test]
async fn kinds_count_by_their_weights() {
    for (_redis, tollgate) in each_store(POLICY) {
        let mut ann = Caller::new(("user", "ann"), &tollgate).await;
        let of_input = (Some("input"), Some(50));
        let asked = [of_input, (Some("output"), Some(20)), (None, None)];
        let handle = ann.reserve(&asked).await;
        // The limit without a hold takes what is asked: 50 and twice 20.
        assert_eq!(ann.used().await, [130, 90, 1]);
        let spent = [of_input, (Some("output"), Some(30)), (Some("cached"), Some(15))];
        assert_eq!(ann.settle(&handle, &spent).await, State::Settled);
        assert_eq!(ann.used().await, [172, 90, 1], "50, four times 30, and 1.5 rounded up");
        assert_eq!(ann.settle(&handle, &spent).await, State::Again);
        // A kind without a weight counts once, and one that is left open is estimated.
        let handle = ann.reserve(&[(Some("audio"), Some(7)), (Some("output"), None)]).await;
        assert_eq!(ann.used().await, [272, 97, 2]);
        assert_eq!(ann.settle(&handle, &[(Some("audio"), Some(9))]).await, State::Settled);
        assert_eq!(ann.used().await, [181, 97, 2]);
        let limits = ann.limits(&[(Some("output"), Some(50)), (Some("output"), None)]).await;
        let told: Vec<_> = limits.iter().map(|one| (one.estimate, &*one.estimate_source)).collect();
        assert_eq!(told, [(Some(200), "request"), (None, ""), (None, "")]);
        let limits = ann.limits(&[(Some("output"), Some(500))]).await;
        assert_eq!(limits[0].estimate, Some(400), "at most max");
    }
}

#[tokio::test]
async fn limit_of_a_client_counts_kinds_as_that_of_its_rule() {
    for (_redis, tollgate) in each_store(POLICY) {
        let mut ann = Caller::new(("user", "ann"), &tollgate).await;
        let limit = operator::limit(5_000, pb::Unit::Day);
        let client = operator::client("llm", ann.entry, limit);
        ann.operator.upsert(client).await.unwrap();
        let handle = ann.reserve(&[(Some("output"), Some(50)), (Some("input"), Some(9))]).await;
        assert_eq!(ann.used().await, [209]);
        assert_eq!(ann.settle(&handle, &[(Some("output"), Some(2))]).await, State::Settled);
        assert_eq!(ann.used().await, [8]);
    }
}

#[tokio::test]
async fn estimate_is_learned_from_what_requests_cost() {
    const PARTS: Parts<'static> = &[(None, None)];
    for (_redis, tollgate) in each_store(POLICY) {
        let mut ann = Caller::new(("learner", "ann"), &tollgate).await;
        assert_eq!(ann.estimate().await, (400, "max".to_owned()));
        let mut last = String::new();
        for round in 0..60 {
            last = ann.reserve(PARTS).await;
            // Eleven of twelve cost 40.
            let cost = if round % 12 == 11 { 9_000 } else { 40 };
            assert_eq!(ann.settle(&last, &[(None, Some(cost))]).await, State::Settled);
        }
        assert_eq!(ann.used().await, [55 * 40 + 5 * 9_000]);
        // 40 is in the cell of 39 to 45.
        assert_eq!(ann.estimate().await, (45, "learned".to_owned()));
        for _ in 0..60 {
            assert_eq!(ann.settle(&last, &[(None, Some(9_000))]).await, State::Again);
        }
        let mut unknown = Vec::new();
        for _ in 0..30 {
            unknown.push(ann.reserve(PARTS).await);
        }
        for handle in unknown {
            // A request that does not say what it has cost teaches nothing.
            assert_eq!(ann.settle(&handle, PARTS).await, State::Settled);
        }
        assert_eq!(ann.estimate().await, (45, "learned".to_owned()));
        // It outlives a change of the policy that keeps the rule.
        let changed = POLICY.replace("requests_per_unit: 100000", "requests_per_unit: 200000");
        let changed = changed.replace("domain: llm", "domain: llm # changed");
        ann.operator.apply(&changed).await;
        assert_eq!(ann.estimate().await, (45, "learned".to_owned()));
        let handle = ann.reserve(&[(None, Some(300))]).await;
        assert_eq!(ann.settle(&handle, &[(None, Some(300))]).await, State::Settled);
    }
}
