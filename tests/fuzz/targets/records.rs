//! Records of the registry: clients, plans, policies and modes, and the keys that name them.
//!
//! Input: the value of a record, or its key.

use tollgate::control::record::{ADAPTIVE_LOCK, HOLD_KEYS, mode_key, policy_key, version_key};
use tollgate::control::record::{Name, StoredMode, StoredPolicy};
use tollgate::domain::{Algorithm, Charge, Limit, Unit};
use tollgate::limits::directory::Directory;
use tollgate::limits::{Client, Model, Plan, Scale};
use tollgate::policy::{AlgorithmName, Defaults};

const REVISION: u64 = 7;

/// A record that is read is written so that it is read again as the same.
pub fn run(data: &[u8]) {
    key(data);
    if let Ok(client) = Client::from_record(data, REVISION) {
        check(&client);
    }
    if let Ok(plan) = Plan::from_record(data, REVISION) {
        let written = plan.to_record().expect("a record");
        assert_eq!(Plan::from_record(&written, REVISION).expect("its own record"), plan);
    }
    if let Ok(policy) = StoredPolicy::read(data) {
        let written = policy.write().expect("a record");
        assert_eq!(StoredPolicy::read(&written).expect("its own record"), policy);
    }
    if let Ok(scale) = Scale::from_record(data, REVISION) {
        let written = scale.to_record().expect("a record");
        assert_eq!(Scale::from_record(&written, REVISION).expect("its own record"), scale);
    }
    if let Ok(mode) = StoredMode::read(data) {
        let written = mode.write().expect("a record");
        assert_eq!(StoredMode::read(&written).expect("its own record"), mode);
    }
}

/// No two keys are of the same subject.
fn key(data: &[u8]) {
    let Some(name) = Name::from_key(data) else { return };
    let written = match &name {
        Name::Client(client) => client.record_key(),
        Name::Plan(plan) => plan.record_key(),
        Name::Scale(scale) => scale.record_key(),
        Name::Policy(domain) => policy_key(domain),
        Name::Version { domain, revision } => version_key(domain, *revision),
        Name::Mode(domain) => mode_key(domain),
        Name::HoldKeys => HOLD_KEYS.into(),
        Name::AdaptiveLock => ADAPTIVE_LOCK.into(),
    };
    assert_eq!(written, data, "{name:?}");
}

fn check(client: &Client) {
    let written = client.to_record().expect("a record");
    let read = Client::from_record(&written, REVISION).expect("its own record");
    assert_eq!(read, *client);
    assert!(read.says_the_same_as(client));
    assert_eq!(read.to_record().expect("a record"), written);
    assert_eq!(Name::from_key(&client.name.record_key()), Some(Name::Client(client.name.clone())));

    let directory = Directory::default();
    directory.put(read);
    assert_eq!(directory.get(&client.name).as_deref(), Some(client));
    assert_eq!(directory.page(Some(&client.name.domain), None, 2).clients.len(), 1);

    for model in models() {
        for rate in client.limits.iter().filter_map(|limit| limit.rate) {
            if let Ok(limit) = rate.limit(&model) {
                assert_eq!(limit.requests(), rate.requests_per_unit);
            }
        }
    }
}

/// Rules of each algorithm, and none.
fn models() -> [Model; 4] {
    let rule = |algorithm| {
        let always = Charge::Always { max_debt: None };
        Limit::new(5, Unit::Minute.period(1).expect("a period"), algorithm, always)
            .expect("a limit")
    };
    let bucket = rule(Algorithm::TokenBucket { burst: 9 });
    let sliding = rule(Algorithm::SlidingWindow { slots: 1_000 });
    let defaults = Defaults { algorithm: AlgorithmName::TokenBucket, ..Defaults::default() };
    let model = |limit| Model { limit, defaults };
    [None, Some(bucket), Some(sliding), Some(rule(Algorithm::FixedWindow))].map(model)
}
