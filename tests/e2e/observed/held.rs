//! Holds whose counts are known: at one replica taken, at the other one ended.

use tollgate::edge::pb::tollgate::v1::hold_service_client::HoldServiceClient;
use tollgate::edge::pb::tollgate::v1::settle_response::State;
use tollgate::edge::pb::tollgate::v1::{ReleaseRequest, ReserveRequest, SettleRequest, Usage};
use tonic::transport::Channel;

use super::{Expected, check, seen};
use crate::support::tollgate::{Tollgate, descriptor, request};

const DOMAIN: &str = "observed";

/// Callers of both replicas, and the holds that they have not settled.
pub struct Holders {
    services: [HoldServiceClient<Channel>; 2],
    open: Vec<Open>,
}

struct Open {
    /// The replica that settles it.
    replica: usize,
    value: String,
    handle: String,
}

impl Holders {
    pub async fn of(replicas: [&str; 2]) -> Self {
        let connect = async |address: &str| {
            HoldServiceClient::new(Tollgate::channel(address.parse().unwrap()).await)
        };
        let services = [connect(replicas[0]).await, connect(replicas[1]).await];
        Self { services, open: Vec::new() }
    }

    /// The handle, if the request is admitted.
    async fn reserve(&mut self, replica: usize, key: &str, value: &str) -> Option<String> {
        let asked = ReserveRequest { request: Some(request(DOMAIN, &[&[(key, value)]])) };
        let handle = self.services[replica].reserve(asked).await.unwrap().into_inner().handle;
        (!handle.is_empty()).then_some(handle)
    }

    /// Its outcome, and whether the store has it.
    async fn settle(&mut self, one: &Open) -> (State, bool) {
        let descriptor = Some(descriptor(&[("tokens", &one.value)]));
        let settlement = SettleRequest {
            domain: DOMAIN.to_owned(),
            handle: one.handle.clone(),
            usage: vec![Usage { descriptor, hits: Some(1) }],
            outcome: None,
        };
        let answer = self.services[one.replica].settle(settlement).await.unwrap().into_inner();
        (answer.state(), answer.booked)
    }

    async fn release(&mut self, replica: usize, value: &str, handle: String) -> State {
        let descriptors = vec![descriptor(&[("job", value)])];
        let ended =
            ReleaseRequest { domain: DOMAIN.to_owned(), handle, descriptors, outcome: None };
        self.services[replica].release(ended).await.unwrap().into_inner().state()
    }

    /// Per replica: 3 estimates, of which 2 are settled and 1 stays; 2 slots of three asked for,
    /// which are released, one of them twice. So 5 are reserved, 4 settled, and 1 again.
    pub async fn round(&mut self, name: &str) {
        for replica in [0, 1] {
            let (other, value) = (1 - replica, format!("{name}-{replica}"));
            for stays in [false, false, true] {
                let handle = self.reserve(replica, "tokens", &value).await.unwrap();
                let one = Open { replica: other, value: value.clone(), handle };
                if stays {
                    self.open.push(one);
                } else {
                    assert_eq!(self.settle(&one).await, (State::Settled, true));
                }
            }
            let slots = [
                self.reserve(replica, "job", &value).await.unwrap(),
                self.reserve(replica, "job", &value).await.unwrap(),
            ];
            assert_eq!(self.reserve(replica, "job", &value).await, None, "60 % of 4");
            for (handle, expected) in [
                (&slots[0], State::Settled),
                (&slots[1], State::Settled),
                (&slots[0], State::Again),
            ] {
                assert_eq!(self.release(other, &value, handle.clone()).await, expected);
            }
        }
    }

    /// Holds by the share of each replica, while Redis is away.
    pub async fn hold_in_outage(&mut self, name: &str) {
        for replica in [0, 1] {
            self.reserve(replica, "tokens", name).await.unwrap();
        }
    }

    /// Settles what stayed, though Redis cannot be asked; how many wait for it.
    pub async fn settle_in_outage(&mut self) -> usize {
        let open = std::mem::take(&mut self.open);
        for one in &open {
            assert_eq!(self.settle(one).await, (State::Unspecified, false));
        }
        open.len()
    }
}

/// The counts of two rounds at two replicas.
pub fn exact_counts() {
    for (state, expected) in [
        ("reserved", 4.0 * 5.0),
        ("settled", 4.0 * 4.0),
        ("again", 4.0),
        ("late", 0.0),
        ("unmatched", 0.0),
        ("invalid", 0.0),
        ("self_settled", 0.0),
        ("unknown_cost", 0.0),
        ("unguarded", 0.0),
        ("renewed", 0.0),
    ] {
        let counted = format!("sum(tollgate_holds_total{{state=\"{state}\"}})");
        check(state, &counted, Expected::Sum(expected));
    }
}

/// After the outage, everything that waited has arrived. What Redis got before it stood still
/// counts as settled again when the second attempt is answered.
pub async fn all_settled(waited: usize) {
    seen("sum(tollgate_settle_queue) == bool 0", 1.0).await;
    let ended = "sum(tollgate_holds_total{state=~\"settled|again\"})";
    let expected = 4.0 * 5.0 + waited as f64;
    seen(ended, expected).await;
    check("ended", ended, Expected::Sum(expected));
    check("lost", "sum(tollgate_unsettled_holds_total)", Expected::Sum(0.0));
}
