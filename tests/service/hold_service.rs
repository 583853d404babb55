//! `tollgate.v1.HoldService` over the real binary: reserved, renewed and ended by callers without a
//! proxy; on both stores.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tollgate::edge::pb::rate_limit_response::Code::{Ok as OK, OverLimit as OVER};
use tollgate::edge::pb::tollgate::v1 as pb;
use tollgate::edge::pb::tollgate::v1::hold_service_client::HoldServiceClient;
use tollgate::edge::pb::tollgate::v1::settle_response::State;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use crate::support::redis::RedisServer;
use crate::support::tollgate::{Options, Tollgate, descriptor, request};

const POLICY: &str = "
domain: llm
descriptors:
  - key: user
    rate_limit: {name: tokens, algorithm: fixed_window, unit: day, requests_per_unit: 20,
                 hold: {ttl: 1m, estimate: {default: 4, max: 10}}}
  - key: brief
    rate_limit: {algorithm: token_bucket, unit: day, requests_per_unit: 20,
                 hold: {ttl: 2s, estimate: {default: 4}}}
  - key: job
    rate_limit: {name: jobs, algorithm: concurrency, max: 1, ttl: 2s}
  - key: mixed
    rate_limits:
    - {name: hits, algorithm: fixed_window, unit: day, requests_per_unit: 20, hold: {ttl: 1h, estimate: {default: 1}}}
    - {name: slots, algorithm: concurrency, max: 1, ttl: 1s}
  - key: slow
    rate_limit: {name: jobs, algorithm: concurrency, max: 3, ttl: 1h}
  - key: team
    value: '*'
    share_threshold: true
    rate_limit: {algorithm: fixed_window, unit: day, requests_per_unit: 20,
                 hold: {ttl: 1m, estimate: {default: 4}}}
";

type Entries<'a> = &'a [(&'a str, &'a str)];

const ANN: Entries<'static> = &[("user", "ann")];

/// A caller of the service.
struct Caller(HoldServiceClient<Channel>);

impl Caller {
    async fn of(tollgate: &Tollgate) -> Self {
        Self(HoldServiceClient::new(Tollgate::channel(tollgate.at.grpc).await))
    }

    async fn reserve(&mut self, descriptors: &[Entries<'_>]) -> pb::ReserveResponse {
        let request = Some(request("llm", descriptors));
        self.0.reserve(pb::ReserveRequest { request }).await.unwrap().into_inner()
    }

    /// The handle of what is admitted.
    async fn held(&mut self, descriptors: &[Entries<'_>]) -> String {
        let reserved = self.reserve(descriptors).await;
        assert_eq!(reserved.response.unwrap().overall_code(), OK);
        assert!(!reserved.handle.is_empty());
        reserved.handle
    }

    /// The hits that are left of the first descriptor once one is charged that stays.
    async fn left(&mut self, entries: Entries<'_>) -> u32 {
        let mut asked = request("llm", &[entries]);
        asked.descriptors[0].hits_addend = Some(1);
        let asked = pb::ReserveRequest { request: Some(asked) };
        let reserved = self.0.reserve(asked).await.unwrap().into_inner();
        reserved.response.unwrap().statuses[0].limit_remaining
    }

    async fn settle(&mut self, entries: Entries<'_>, handle: &str, hits: Option<u64>) -> State {
        let answer = self.0.settle(settlement(entries, handle, hits)).await.unwrap().into_inner();
        assert!(answer.booked);
        answer.state()
    }

    async fn release(&mut self, descriptors: &[Entries<'_>], handle: &str) -> State {
        let answer = self
            .0
            .release(pb::ReleaseRequest {
                domain: "llm".into(),
                handle: handle.into(),
                descriptors: descriptors.iter().map(|entries| descriptor(entries)).collect(),
                outcome: None,
            })
            .await;
        let answer = answer.unwrap().into_inner();
        assert!(answer.booked);
        answer.state()
    }

    async fn renew(&mut self, descriptors: &[Entries<'_>], handle: &str) -> pb::RenewResponse {
        let request = pb::RenewRequest {
            domain: "llm".into(),
            handle: handle.into(),
            descriptors: descriptors.iter().map(|entries| descriptor(entries)).collect(),
        };
        self.0.renew(request).await.unwrap().into_inner()
    }
}

fn settlement(entries: Entries<'_>, handle: &str, hits: Option<u64>) -> pb::SettleRequest {
    let usage = vec![pb::Usage { descriptor: Some(descriptor(entries)), hits }];
    pb::SettleRequest { domain: "llm".into(), handle: handle.into(), usage, outcome: None }
}

/// Both stores.
async fn each_store() -> Vec<(Option<RedisServer>, Tollgate, Caller)> {
    let mut stores = Vec::new();
    for redis in [None, RedisServer::start()] {
        let mut options = Options::serving(POLICY);
        if let Some(redis) = &redis {
            options = options.redis(redis.url());
        } else if !stores.is_empty() {
            break;
        }
        let tollgate = options.start();
        let caller = Caller::of(&tollgate).await;
        stores.push((redis, tollgate, caller));
    }
    stores
}

/// The field that is wrong.
fn field(status: &Status) -> String {
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    let details = status.get_error_details();
    details.bad_request().unwrap().field_violations[0].field.clone()
}

#[tokio::test]
async fn reservation_is_settled_once_by_its_cost() {
    for (_redis, _tollgate, mut caller) in each_store().await {
        let reserved = caller.reserve(&[ANN]).await;
        assert_eq!(reserved.expires_in_ms, 60_000);
        assert_eq!(reserved.response.unwrap().statuses[0].limit_remaining, 16);
        let handle = reserved.handle;
        let bob = &[("user", "bob")][..];
        assert_eq!(caller.settle(bob, &handle, Some(0)).await, State::Unmatched);
        assert_eq!(caller.settle(ANN, &handle, Some(1)).await, State::Settled);
        assert_eq!(caller.settle(ANN, &handle, Some(0)).await, State::Again);
        assert_eq!(caller.release(&[ANN], &handle).await, State::Again);
        assert_eq!(caller.left(ANN).await, 18, "1 and 1 of 20");
        let second = caller.held(&[ANN]).await;
        assert_eq!(caller.settle(ANN, &second, Some(17)).await, State::Settled);
        let reserved = caller.reserve(&[ANN]).await;
        assert_eq!(reserved.response.unwrap().overall_code(), OVER, "19 of 20");
        assert_eq!((&*reserved.handle, reserved.expires_in_ms), ("", 0));
        let third = caller.held(&[bob]).await;
        assert_eq!(caller.settle(bob, &third, None).await, State::Settled, "it keeps the estimate");
        assert_eq!(caller.left(bob).await, 15);
    }
}

#[tokio::test]
async fn invalid_fields_are_named_and_change_nothing() {
    for (_redis, tollgate, mut caller) in each_store().await {
        let handle = caller.held(&[ANN]).await;
        let mut forged = handle.clone().into_bytes();
        forged[30] ^= 1;
        let forged = String::from_utf8(forged).unwrap();
        for bad in ["", "x", &forged] {
            let status = caller.0.settle(settlement(ANN, bad, Some(0))).await.unwrap_err();
            assert_eq!(field(&status), "handle");
        }
        let other = pb::SettleRequest { domain: "d".into(), ..settlement(ANN, &handle, None) };
        assert_eq!(field(&caller.0.settle(other).await.unwrap_err()), "handle");
        let mut unnamed = settlement(ANN, &handle, None);
        unnamed.usage[0].descriptor = None;
        let unnamed = caller.0.settle(unnamed).await.unwrap_err();
        assert_eq!(field(&unnamed), "usage[0].descriptor");
        let domainless = pb::SettleRequest { domain: String::new(), ..settlement(ANN, "", None) };
        assert_eq!(field(&caller.0.settle(domainless).await.unwrap_err()), "domain");
        let bare = pb::RenewRequest { domain: "llm".into(), handle, descriptors: Vec::new() };
        assert_eq!(field(&caller.0.renew(bare).await.unwrap_err()), "descriptors");
        let many = settlement(&[("k", "v"); 17], &forged, None);
        assert_eq!(field(&caller.0.settle(many).await.unwrap_err()), "descriptors");
        let none = caller.0.reserve(pb::ReserveRequest::default()).await.unwrap_err();
        assert_eq!(field(&none), "request");
        let request = Some(request("", &[ANN]));
        let nameless = caller.0.reserve(pb::ReserveRequest { request }).await.unwrap_err();
        assert_eq!(field(&nameless), "request.domain");
        assert_eq!(tollgate.metric("tollgate_holds_total{state=\"invalid\"}"), Some(4.0));
        assert_eq!(caller.left(ANN).await, 15);
    }
}

#[tokio::test]
async fn release_gives_hits_and_slots_back() {
    for (_redis, _tollgate, mut caller) in each_store().await {
        let both = &[ANN, &[("slow", "x")][..]][..];
        let mut handles = Vec::new();
        for _ in 0..3 {
            handles.push(caller.held(both).await);
        }
        assert_eq!(caller.reserve(both).await.response.unwrap().overall_code(), OVER);
        for handle in &handles {
            assert_eq!(caller.release(both, handle).await, State::Settled);
            assert_eq!(caller.release(both, handle).await, State::Again);
        }
        assert_eq!(caller.left(&[("slow", "x")]).await, 2, "the one that was asked for now");
        assert_eq!(caller.left(ANN).await, 19);
    }
}

/// Two descriptors on one counter end a charge each.
#[tokio::test]
async fn descriptors_that_share_a_counter_end_a_charge_each() {
    for (_redis, _tollgate, mut caller) in each_store().await {
        let (one, two) = (&[("team", "a")][..], &[("team", "b")][..]);
        let mut asked = request("llm", &[one, two]);
        asked.descriptors[0].hits_addend = Some(9);
        asked.descriptors[1].hits_addend = Some(1);
        let asked = pb::ReserveRequest { request: Some(asked) };
        let handle = caller.0.reserve(asked).await.unwrap().into_inner().handle;
        caller.held(&[one]).await;
        assert_eq!(caller.release(&[one, two], &handle).await, State::Settled);
        assert_eq!(caller.left(one).await, 15, "4 of the second hold, and 1");
    }
}

/// Also where the hold goes on by another limit, so that its settlement is not late.
#[tokio::test]
async fn slot_that_has_ended_before_its_release_is_counted_once() {
    for (_redis, tollgate, mut caller) in each_store().await {
        let (mixed, job) = (&[("mixed", "x")][..], &[("job", "x")][..]);
        let expired = || tollgate.metric("tollgate_expired_holds_total");
        let handle = caller.held(&[mixed]).await;
        assert_eq!(caller.release(&[mixed], &handle).await, State::Settled);
        assert_eq!(expired(), Some(0.0), "it was released in time");

        let (first, alone) = (caller.held(&[mixed]).await, caller.held(&[job]).await);
        // A replica knows the store's clock to some milliseconds.
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        caller.held(&[mixed]).await;
        assert_eq!(expired(), Some(0.0), "nobody has released it");
        for state in [State::Settled, State::Again] {
            assert_eq!(caller.release(&[mixed], &first).await, state);
            assert_eq!(expired(), Some(1.0));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(caller.release(&[job], &alone).await, State::Late);
        assert_eq!(expired(), Some(2.0));
    }
}

#[tokio::test]
async fn settlement_after_the_end_of_a_hold_is_late() {
    for (_redis, _tollgate, mut caller) in each_store().await {
        let brief = &[("brief", "x")][..];
        let handle = caller.held(&[brief]).await;
        tokio::time::sleep(Duration::from_millis(2_100)).await;
        assert_eq!(caller.settle(brief, &handle, Some(0)).await, State::Late);
        assert_eq!(caller.left(brief).await, 15);
        let renewed = caller.renew(&[brief], &handle).await;
        assert_eq!((&*renewed.handle, renewed.held, renewed.expires_in_ms), ("", false, 0));
    }
}

#[tokio::test]
async fn renewed_slot_is_kept_beyond_its_time_to_live() {
    for (_redis, _tollgate, mut caller) in each_store().await {
        let job = &[("job", "x")][..];
        let first = caller.held(&[job]).await;
        let (begun, mut handle) = (Instant::now(), first.clone());
        while begun.elapsed() < Duration::from_secs(4) {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let renewed = caller.renew(&[job], &handle).await;
            assert!(renewed.held && renewed.expires_in_ms > 1_000, "{renewed:?}");
            handle = renewed.handle;
            let taken = caller.reserve(&[job]).await.response.unwrap();
            assert_eq!(taken.overall_code(), OVER, "after {:?}", begun.elapsed());
        }
        assert_ne!(caller.release(&[job], &first).await, State::Settled);
        let taken = caller.reserve(&[job]).await.response.unwrap();
        assert_eq!(taken.overall_code(), OVER, "an old handle releases nothing");
        assert_eq!(caller.release(&[job], &handle).await, State::Settled);
        caller.held(&[job]).await;
    }
}

/// Whatever the order of handles: a hold that was renewed is settled once.
#[tokio::test]
async fn renewed_hold_is_settled_once_by_its_newest_handle() {
    for (_redis, tollgate, mut caller) in each_store().await {
        let brief = &[("brief", "x")][..];
        let first = caller.held(&[brief]).await;
        let second = caller.renew(&[brief], &first).await;
        assert!(second.held && second.expires_in_ms > 1_000, "{second:?}");
        let again = caller.renew(&[brief], &first).await;
        assert_eq!((&*again.handle, again.held), ("", false), "a handle is renewed once");
        assert_eq!(caller.settle(brief, &first, Some(0)).await, State::Again);
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        let third = caller.renew(&[brief], &second.handle).await;
        assert!(third.held, "{third:?}");
        assert_eq!(caller.settle(brief, &second.handle, Some(0)).await, State::Again);
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        // The lives of the handles before are over, and that of the hold is not.
        for over in [&first, &second.handle] {
            assert_eq!(caller.settle(brief, over, Some(0)).await, State::Late);
        }
        assert_eq!(caller.settle(brief, &third.handle, Some(1)).await, State::Settled);
        assert_eq!(caller.settle(brief, &third.handle, Some(0)).await, State::Again);
        let late = caller.renew(&[brief], &third.handle).await;
        assert_eq!((&*late.handle, late.held), ("", false), "it is over");
        assert_eq!(caller.left(brief).await, 18, "1 and 1 of 20");
        assert_eq!(tollgate.metric("tollgate_holds_total{state=\"renewed\"}"), Some(2.0));
    }
}

/// A charge is in one handle at a time.
#[tokio::test]
async fn charges_that_were_not_renewed_stay_with_the_old_handle() {
    for (_redis, _tollgate, mut caller) in each_store().await {
        let brief = &[("brief", "x")][..];
        let first = caller.held(&[ANN, brief]).await;
        let second = caller.renew(&[brief], &first).await;
        assert!(!second.held && !second.handle.is_empty(), "{second:?}");
        assert_eq!(caller.release(&[ANN], &second.handle).await, State::Unmatched);
        assert_eq!(caller.release(&[brief], &first).await, State::Again);
        assert_eq!(caller.release(&[ANN], &first).await, State::Settled);
        assert_eq!(caller.release(&[brief], &second.handle).await, State::Settled);
        assert_eq!((caller.left(ANN).await, caller.left(brief).await), (19, 19));
    }
}

#[tokio::test]
async fn other_replica_renews_and_settles() {
    let Some(redis) = RedisServer::start() else { return };
    let options = || Options::serving(POLICY).redis(redis.url()).set("holds.secret=sesame-sesame");
    let (one, other) = (options().start(), options().start());
    let (mut one, mut other) = (Caller::of(&one).await, Caller::of(&other).await);
    let first = one.held(&[ANN]).await;
    let second = other.renew(&[ANN], &first).await;
    assert!(second.held);
    assert_eq!(one.settle(ANN, &first, Some(0)).await, State::Again);
    assert_eq!(one.settle(ANN, &second.handle, Some(2)).await, State::Settled);
    assert_eq!(other.settle(ANN, &second.handle, Some(0)).await, State::Again);
    assert_eq!(other.left(ANN).await, 17);
}

#[tokio::test]
async fn settlement_that_the_store_does_not_answer_is_booked_later() {
    let Some(redis) = RedisServer::start() else { return };
    let tollgate = Options::serving(POLICY).redis(redis.url()).start();
    let mut caller = Caller::of(&tollgate).await;
    let handle = caller.held(&[ANN]).await;
    let bob = &[("user", "bob")][..];
    let unrenewed = caller.held(&[bob]).await;
    redis.pause();
    let mut request = Request::new(settlement(ANN, &handle, Some(1)));
    request.set_timeout(Duration::from_secs(5));
    let begun = Instant::now();
    let answer = caller.0.settle(request).await.unwrap().into_inner();
    assert_eq!((answer.state(), answer.booked), (State::Unspecified, false));
    assert!(begun.elapsed() >= Duration::from_secs(4), "it waits for most of its deadline");
    let renewal = pb::RenewRequest {
        domain: "llm".into(),
        handle: unrenewed,
        descriptors: vec![descriptor(bob)],
    };
    assert_eq!(caller.0.renew(renewal).await.unwrap_err().code(), Code::Unavailable);
    redis.resume();
    // Redis may have had the first attempt, and then the next one comes again.
    let times = |state| tollgate.metric(&format!("tollgate_holds_total{{state=\"{state}\"}}"));
    tollgate.wait_for("a settlement", || [times("settled"), times("again")].contains(&Some(1.0)));
    assert_eq!(caller.settle(ANN, &handle, Some(0)).await, State::Again);
    assert_eq!(caller.left(ANN).await, 18);
}

/// A call that its caller gives up releases what it has taken, also once a slow store has taken it.
#[tokio::test]
async fn reservations_that_are_given_up_keep_no_slots() {
    let Some(redis) = RedisServer::start() else { return };
    let options = Options::serving(POLICY).redis(redis.url()).set("store.deadline=20s");
    let tollgate = options.set("redis.response_timeout=30s").start();
    let mut caller = Caller::of(&tollgate).await;
    let slow = &[("slow", "x")][..];
    let handle = caller.held(&[slow]).await;
    redis.pause();
    let mut calls = JoinSet::new();
    for _ in 0..6 {
        let mut own = Caller(caller.0.clone());
        let patience = Duration::from_millis(300);
        calls.spawn(async move {
            tokio::time::timeout(patience, own.reserve(&[&[("slow", "x")]])).await.is_err()
        });
    }
    assert_eq!(calls.join_all().await, [true; 6], "nobody has an answer");
    tollgate.wait_for_metric("tollgate_settle_queue", 6.0);
    redis.resume();
    tollgate.wait_for("their ends", || tollgate.metric("tollgate_settle_queue") == Some(0.0));
    assert_eq!(caller.left(slow).await, 1, "the first one and this one hold a slot");
    assert_eq!(caller.release(&[slow], &handle).await, State::Settled);
}
