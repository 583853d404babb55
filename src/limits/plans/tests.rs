use std::time::Instant;

use super::*;
use crate::domain::{Timestamp, Unit};
use crate::limits::directory::Directory;
use crate::limits::name::Value;
use crate::limits::{Client, ClientLimit, ClientName, Entries, Limits, Rate};

const DOMAIN: &str = "d";

fn limit(requests_per_unit: u32) -> ClientLimit {
    let rate = Rate {
        requests_per_unit,
        unit: Unit::Minute,
        unit_multiplier: 1,
        algorithm: None,
        burst: None,
        slots: None,
        always: None,
        settled: false,
        max_debt: None,
        on_store_failure: None,
    };
    ClientLimit { name: None, rate: Some(rate) }
}

fn key(name: &str) -> PlanKey {
    PlanKey { domain: DOMAIN.into(), name: name.into() }
}

fn plan(name: &str, requests_per_unit: u32, revision: u64) -> Plan {
    let PlanKey { domain, name } = key(name);
    Plan {
        domain,
        name,
        limits: Limits::from_iter([limit(requests_per_unit)]),
        metadata: None,
        labels: None,
        updated_at: Timestamp::EPOCH,
        revision,
    }
}

fn value(i: usize) -> [u8; 8] {
    let digits = b"0123456789";
    std::array::from_fn(|at| digits[i / 10_usize.pow(7 - at as u32) % 10])
}

fn client(i: usize, plan: Membership) -> Client {
    let entries = Entries::of([(&b"key"[..], Value::clear(&value(i)))]);
    Client {
        name: ClientName { domain: DOMAIN.into(), entries },
        limits: Limits::default(),
        plan: Some(Arc::new(plan)),
        shadow: None,
        quota: None,
        metadata: None,
        labels: None,
        expires_at: None,
        updated_at: Timestamp::EPOCH,
        revision: 1,
    }
}

fn found(directory: &Directory, i: usize) -> Arc<Client> {
    let value = value(i);
    let entries = [(&b"key"[..], &value[..])];
    let hash = |_: &[u8]| String::new();
    directory.find_in_any_form(DOMAIN.as_bytes(), &entries.into_iter(), hash).unwrap()
}

/// The rate that the plan of a client gives it now; none: the plan is not there.
fn rate(directory: &Directory, client: &Client) -> Option<u32> {
    let name = client.plan.as_ref().unwrap().at(Timestamp::EPOCH).unwrap();
    let plan = directory.plans().find(name)?;
    Some(plan.limits[0].rate.unwrap().requests_per_unit)
}

#[test]
fn changed_plan_is_in_force_for_each_of_a_million_clients_and_touches_none() {
    const CLIENTS: usize = 1_000_000;
    const PLANS: usize = 10;
    let directory = Directory::default();
    let name = |i: usize| format!("plan-{}", i % PLANS);
    for i in 0..PLANS {
        directory.plans().put(plan(&name(i), 10, 1));
    }
    for i in 0..CLIENTS {
        directory.put(client(i, Membership::of(name(i).as_str().into())));
    }
    assert_eq!(directory.plans().clients_of(&key("plan-3")), CLIENTS / PLANS);
    let all = || directory.page(Some(DOMAIN), None, CLIENTS).clients;
    let before = all();
    assert!(before.iter().all(|client| rate(&directory, client) == Some(10)));
    // No client holds a membership or a name of its own.
    let shared = before[3].plan.as_ref().unwrap();
    assert!(Arc::ptr_eq(shared, before[13].plan.as_ref().unwrap()));

    let begun = Instant::now();
    directory.plans().put(plan("plan-3", 77, 2));
    let took = begun.elapsed();

    assert!(took.as_millis() < 10, "{took:?} for one record");
    for (i, (now, before)) in all().iter().zip(&before).enumerate() {
        assert!(Arc::ptr_eq(now, before), "client {i} was written");
        let expected = if i % PLANS == 3 { 77 } else { 10 };
        assert_eq!(rate(&directory, now), Some(expected), "client {i}");
    }
    for i in (0..CLIENTS).step_by(1_013) {
        let expected = if i % PLANS == 3 { 77 } else { 10 };
        assert_eq!(rate(&directory, &found(&directory, i)), Some(expected), "client {i}");
    }
}

#[test]
fn number_of_a_plan_that_is_gone_leads_to_no_other_plan() {
    let directory = Directory::default();
    let plans = directory.plans();
    plans.put(plan("gold", 1, 1));
    directory.put(client(1, Membership::of("gold".into())));
    let held = found(&directory, 1);
    assert_eq!(rate(&directory, &held), Some(1));
    directory.remove(&held.name);
    plans.remove(&key("gold"));
    plans.put(plan("other", 2, 2));
    assert_eq!(rate(&directory, &held), None, "a decision under way");
    assert_eq!(plans.slots.lock().by_number.len(), 1, "the number is used again");
}

#[test]
fn clients_are_counted_by_every_plan_they_name() {
    let directory = Directory::default();
    let counts = |name: &str| directory.plans().clients_of(&key(name));
    let ends_at = Some(Timestamp::from_micros(5));
    let trial = Membership { name: "gold".into(), ends_at, then: Some("silver".into()) };
    directory.put(client(1, trial));
    directory.put(client(2, Membership::of("gold".into())));
    assert_eq!((counts("gold"), counts("silver")), (2, 1));
    assert_eq!(directory.plans().clients_with_end(), 1);
    assert!(directory.plans().get(&key("gold")).is_none(), "named, and not there");
    directory.put(client(1, Membership::of("silver".into())));
    assert_eq!((counts("gold"), counts("silver")), (1, 1));
    assert_eq!(directory.plans().clients_with_end(), 0);
    directory.remove(&client(2, Membership::of("gold".into())).name);
    directory.put(Client { plan: None, ..client(1, Membership::of("gold".into())) });
    assert_eq!((counts("gold"), counts("silver")), (0, 0));
    assert!(directory.plans().slots.lock().numbers.is_empty());
}

#[test]
fn pages_go_through_all_in_order_and_retain_takes_out_others() {
    let plans = Plans::default();
    for (i, domain) in ["b", "a", "c"].iter().cycle().take(30).enumerate() {
        plans.put(Plan { domain: (*domain).into(), ..plan(&format!("{i:02}"), 1, 1) });
    }
    let mut seen: Vec<PlanKey> = Vec::new();
    loop {
        let page = plans.page(None, seen.last(), 7);
        seen.extend(page.plans.iter().map(|listed| listed.plan.key()));
        if !page.more {
            break;
        }
    }
    assert_eq!(seen.len(), 30);
    assert!(seen.is_sorted());
    let page = plans.page(Some("b"), None, 100);
    assert_eq!((page.plans.len(), page.more), (10, false));
    plans.retain(|key| *key.domain == *"a");
    assert_eq!((plans.len(), plans.page(Some("b"), None, 100).plans.len()), (10, 0));
}
