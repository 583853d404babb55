//! The decision of a whole request, against the rule as a sentence: denied charges nothing, admitted charges
//! every limit of each part that passes, and what is booked is charged in any case.

use std::time::Duration;

use proptest::prelude::*;
use tollgate::domain::{
    Algorithm, Charge, Claim, Commit, Counter, Group, Hits, Key, Limit, Part, Timestamp, Verdict,
};

const NOW: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

#[derive(Clone, Debug)]
struct Asked {
    slot: usize,
    hits: Hits,
    always: bool,
}

type Described = (bool, bool, Vec<Asked>);

/// Parts as (quota, shadow, claims) over four counters of fixed windows.
fn parts() -> impl Strategy<Value = Vec<Described>> {
    let hits = prop_oneof![
        6 => (1_u64..5).prop_map(Hits::Take),
        1 => (0_u64..2).prop_map(Hits::Peek),
        2 => (1_u64..5).prop_map(Hits::Book),
        1 => (0_u64..4).prop_map(Hits::Refund),
    ];
    let asked = (0_usize..4, hits, prop::bool::weighted(0.15))
        .prop_map(|(slot, hits, always)| Asked { slot, hits, always });
    let claims = prop::collection::vec(asked, 1..3).prop_map(apart);
    let part = (prop::bool::weighted(0.3), prop::bool::weighted(0.2), claims);
    prop::collection::vec(part, 1..5)
}

/// Two claims of one part have different keys; that is what policies promise.
fn apart(mut claims: Vec<Asked>) -> Vec<Asked> {
    if let [first, second] = claims.as_mut_slice()
        && first.slot == second.slot
    {
        second.slot = (first.slot + 1) % 4;
    }
    claims
}

fn limit(always: bool) -> Limit {
    let max_debt = None;
    let charge = if always { Charge::Always { max_debt } } else { Charge::Settled { max_debt } };
    Limit::new(6, Duration::from_hours(1), Algorithm::FixedWindow, charge).unwrap()
}

fn group(parts: &[Described]) -> (Group, Vec<usize>) {
    let (mut group, mut slots) = (Group::default(), Vec::new());
    for (quota, shadow, asked) in parts {
        let start = group.claims.len();
        for Asked { slot, hits, always } in asked {
            let key = Key::new(vec![*slot as u8]);
            group.claims.push(Claim { key, limit: limit(*always), hits: *hits, lease: None });
            slots.push(*slot);
        }
        group.parts.push(Part {
            quota: *quota,
            shadow: *shadow,
            claims: start..group.claims.len(),
        });
    }
    (group, slots)
}

fn used(counter: &Counter) -> u64 {
    match counter {
        Counter::FixedWindow(state) => state.count,
        _ => 0,
    }
}

/// The rule, claim by claim, on plain numbers. Returns the verdict and what is used afterwards.
fn by_the_rule(parts: &[Described], used: [u64; 4]) -> (Verdict, [u64; 4]) {
    let apply = |now: &mut [u64; 4], asked: &Asked| {
        let fits =
            now[asked.slot] + asked.hits.needed() <= 6 || matches!(asked.hits, Hits::Refund(_));
        match asked.hits {
            Hits::Take(hits) if fits || asked.always => now[asked.slot] += hits,
            Hits::Book(hits) => now[asked.slot] += hits,
            Hits::Refund(given) => now[asked.slot] = now[asked.slot].saturating_sub(given),
            _ => {}
        }
        fits
    };
    let unconditional =
        |asked: &&Asked| asked.always || matches!(asked.hits, Hits::Refund(_) | Hits::Book(_));
    let mut tried = used;
    let mut passes = Vec::new();
    for (_, _, claims) in parts {
        let before = tried;
        let fits: Vec<bool> = claims.iter().map(|asked| apply(&mut tried, asked)).collect();
        let passed = fits.iter().all(|fits| *fits);
        if !passed {
            tried = before;
            claims.iter().filter(unconditional).for_each(|asked| _ = apply(&mut tried, asked));
        }
        passes.push(passed);
    }
    let counted = || parts.iter().zip(&passes);
    let enforced_fails = counted().any(|((quota, shadow, _), p)| !quota && !shadow && !p);
    let quotas: Vec<bool> = counted()
        .filter(|((quota, _, _), _)| *quota)
        .map(|((_, shadow, _), p)| *p || *shadow)
        .collect();
    let denied = enforced_fails || (!quotas.is_empty() && quotas.iter().all(|passed| !passed));
    if !denied {
        return (Verdict::Admit, tried);
    }
    let mut after = used;
    let all = parts.iter().flat_map(|(_, _, claims)| claims);
    all.filter(unconditional).for_each(|asked| _ = apply(&mut after, asked));
    (Verdict::Deny, after)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_096))]

    #[test]
    fn group_is_decided_by_the_rule(parts in parts(), used_before in prop::array::uniform4(0_u64..8)) {
        let (group, slots) = group(&parts);
        let mut counters: Vec<Counter> = used_before.iter().map(|used| filled(*used)).collect();
        let untouched = counters.clone();

        let tried = group.decide(Commit::Never, NOW, &slots, &mut counters);
        prop_assert_eq!(&counters, &untouched);

        let readings = group.decide(Commit::Together, NOW, &slots, &mut counters);
        prop_assert_eq!(&tried, &readings);
        let verdict = group.verdict(|claim| readings[claim].passed);
        let after = [0, 1, 2, 3].map(|slot| used(&counters[slot]));
        prop_assert_eq!((verdict, after), by_the_rule(&parts, used_before));
    }

    /// A claim that is the only one is decided as its group is.
    #[test]
    fn claim_alone_is_decided_as_its_group(
        parts in parts(),
        used_before in 0_u64..8,
        commit in prop::sample::select(vec![Commit::Together, Commit::Each, Commit::Never]),
    ) {
        for (quota, shadow, asked) in parts {
            let (group, _) = group(&[(quota, shadow, asked[..1].to_vec())]);
            let mut counters = [filled(used_before)];
            let readings = group.decide(commit, NOW, &[0], &mut counters);
            let mut alone = filled(used_before);
            prop_assert_eq!(vec![group.claims[0].decide(commit, NOW, &mut alone)], readings);
            prop_assert_eq!([alone], counters);
        }
    }

    /// Without a verdict every part stands for itself.
    #[test]
    fn each_charges_the_parts_that_pass(parts in parts(), used_before in prop::array::uniform4(0_u64..8)) {
        let (group, slots) = group(&parts);
        let mut counters: Vec<Counter> = used_before.iter().map(|used| filled(*used)).collect();
        group.decide(Commit::Each, NOW, &slots, &mut counters);
        let shadowed: Vec<Described> =
            parts.into_iter().map(|(quota, _, claims)| (quota, true, claims)).collect();
        let after = [0, 1, 2, 3].map(|slot| used(&counters[slot]));
        prop_assert_eq!(after, by_the_rule(&shadowed, used_before).1);
    }
}

fn filled(used: u64) -> Counter {
    let mut counter = Counter::Empty;
    if used > 0 {
        counter.step(&limit(true), Hits::Take(used), NOW);
    }
    counter
}
