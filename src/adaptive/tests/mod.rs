//! The controller against simulated upstreams: what still succeeds while they are unwell, and how
//! rarely it cuts when nothing is wrong. Controllers that lack a part are convicted by the same
//! runs.

mod backend;

use std::time::Duration;

use proptest::prelude::*;

use self::backend::{Limited, Ran, TARGET, Trial};
use super::course::Tuning;
use super::{Controller, Form, Second, Step, Terms};

const TERMS: Terms = Terms {
    p95: Some(TARGET),
    errors: Some(0.05),
    min: 100,
    max: 1_000,
    drain: DRAIN,
    shadow: false,
};
const DRAIN: Duration = Duration::from_secs(3);

/// Half of 1000 a second for a minute, and 900 are offered.
fn brown_out() -> Trial {
    Trial {
        seconds: 240,
        limit: Limited::Rate { per_second: 1_000.0, burst: 100.0 },
        offered: |_| 900.0,
        capacity: |at| if (60.0..120.0).contains(&at) { 500.0 } else { 1_000.0 },
        retried: 0.0,
        denied_again: 0.0,
        lost: 0.0,
        noise: 0.0,
        lag: 0,
        seed: 1,
    }
}

fn form(trial: &Trial) -> Form {
    match trial.limit {
        Limited::Rate { per_second, .. } => Form::Rate { per_second },
        Limited::AtATime(_) => Form::Relative,
    }
}

fn run(trial: Trial, terms: Terms) -> Ran {
    trial.run(Some(Controller::new(terms, form(&trial), 1_000)))
}

fn tuned(trial: Trial, tuning: Tuning) -> Ran {
    trial.run(Some(Controller::tuned(TERMS, form(&trial), 1_000, tuning)))
}

/// The share of 500 a second that succeeds in the minute.
fn goodput(ran: &Ran) -> f64 {
    ran.share(60, 120, 500.0)
}

#[test]
fn what_the_upstream_can_still_do_succeeds_and_all_of_it_comes_back() {
    let at_once = brown_out();
    let late = Trial { lag: 100, ..at_once };
    let double = Limited::Rate { per_second: 2_000.0, burst: 200.0 };
    let bursts = Limited::Rate { per_second: 1_000.0, burst: 1_000.0 };
    let rows = [
        ("at once", at_once, TERMS, 0.95, 15),
        ("a quarter of a second later", Trial { lag: 25, ..at_once }, TERMS, 0.93, 15),
        ("a second later", late, TERMS, 0.85, 30),
        ("a limit twice too high", Trial { limit: double, ..late }, TERMS, 0.85, 30),
        ("large bursts", Trial { limit: bursts, ..late }, TERMS, 0.85, 30),
        ("a storm", Trial { retried: 0.9, denied_again: 0.7, ..late }, TERMS, 0.85, 30),
        ("times alone", late, Terms { errors: None, ..TERMS }, 0.85, 30),
        ("errors alone", late, Terms { p95: None, ..TERMS }, 0.5, 30),
        ("two seconds later", Trial { lag: 200, ..at_once }, TERMS, 0.60, 30),
        ("a 20th of reports lost", Trial { lost: 0.05, ..late }, TERMS, 0.85, 30),
        ("a fifth", Trial { lost: 0.2, ..late }, TERMS, 0.85, 30),
        ("half", Trial { lost: 0.5, ..late }, TERMS, 0.85, 30),
        ("another seed", Trial { seed: 2, ..late }, TERMS, 0.85, 30),
    ];
    for (name, trial, terms, least, back_within) in rows {
        let ran = run(trial, terms);
        let (share, back) = (goodput(&ran), ran.back_after(120, 900.0));
        assert!(share >= least, "{name}: {share:.3} of the best");
        let is_back = back.is_some_and(|back| back <= back_within);
        assert!(is_back, "{name}: back after {back:?} s");
        let bounded = ran.scales.iter().all(|scale| (0.1..=1.0).contains(scale));
        assert!(bounded, "{name}: {:?}", ran.scales);
    }
    let nothing = goodput(&brown_out().run(None));
    assert!(nothing < 0.1, "without a controller {nothing:.3} succeeds");
}

#[test]
fn a_tenth_is_found_and_a_dip_of_seconds_is_forgotten() {
    let tenth = Trial {
        capacity: |at| if (60.0..120.0).contains(&at) { 100.0 } else { 1_000.0 },
        lag: 100,
        ..brown_out()
    };
    let ran = run(tenth, Terms { min: 50, ..TERMS });
    let share = ran.share(60, 120, 100.0);
    assert!(share >= 0.35, "{share:.3} of a tenth");
    let dip = Trial {
        capacity: |at| if (60.0..65.0).contains(&at) { 500.0 } else { 1_000.0 },
        ..brown_out()
    };
    let back = run(dip, TERMS).back_after(65, 900.0);
    assert!(back.is_some_and(|back| back <= 20), "back after {back:?} s");
    let mild = Trial {
        capacity: |at| if (60.0..120.0).contains(&at) { 800.0 } else { 1_000.0 },
        ..brown_out()
    };
    let ran = run(mild, TERMS);
    assert!(ran.share(60, 120, 800.0) >= 0.9, "{:?}", ran.good);
}

#[test]
fn requests_at_a_time_are_turned_by_factors() {
    let of = |most| Trial { limit: Limited::AtATime(most), ..brown_out() };
    for (most, least) in [(300.0, 0.97), (600.0, 0.95), (2_000.0, 0.85)] {
        let share = goodput(&run(of(most), TERMS));
        assert!(share >= least, "{most} at a time: {share:.3} of the best");
    }
    let nothing = goodput(&of(600.0).run(None));
    assert!(nothing < 0.1, "without a controller {nothing:.3} succeeds");
}

/// From 200 to 1400 a second within ten minutes, on an upstream that does 1000.
#[test]
fn day_under_a_limit_that_is_too_high_is_served() {
    let day = Trial {
        seconds: 600,
        limit: Limited::Rate { per_second: 3_000.0, burst: 100.0 },
        offered: |at| 800.0 - 600.0 * (std::f64::consts::TAU * at / 600.0).cos(),
        capacity: |_| 1_000.0,
        seed: 3,
        ..brown_out()
    };
    let possible: f64 = (0..600).map(|at| (day.offered)(f64::from(at)).min(1_000.0)).sum();
    let served = |ran: &Ran| ran.good.iter().sum::<u64>() as f64 / possible;
    let controlled = served(&run(day, TERMS));
    assert!(controlled >= 0.95, "{controlled:.3} of the best");
    let at_a_time = Trial { limit: Limited::AtATime(600.0), ..day };
    let controlled = served(&run(at_a_time, TERMS));
    assert!(controlled >= 0.95, "{controlled:.3} of the best at a time");
    let nothing = served(&day.run(None));
    assert!(nothing < 0.6, "without a controller {nothing:.3} succeeds");
}

fn noise(rate: fn(f64) -> f64, per_second: f64, noise: f64) -> Trial {
    Trial {
        seconds: 600,
        limit: Limited::Rate { per_second, burst: 10.0 },
        offered: rate,
        capacity: |_| 1_000.0,
        noise,
        seed: 7,
        ..brown_out()
    }
}

/// Some requests always fail; at most as many as may.
fn noisy() -> [Trial; 4] {
    [
        noise(|_| 20.0, 22.0, 0.03),
        noise(|_| 20.0, 22.0, 0.05),
        noise(|_| 5.0, 22.0, 0.03),
        noise(|_| 200.0, 220.0, 0.03),
    ]
}

#[test]
fn chance_cuts_at_most_three_times_in_ten_minutes() {
    for trial in noisy() {
        let ran = run(trial, TERMS);
        assert!(ran.cuts <= 3, "{} cuts of {trial:?}", ran.cuts);
        let relative = trial.run(Some(Controller::new(TERMS, Form::Relative, 1_000)));
        assert!(relative.cuts <= 4, "{} cuts, relative, of {trial:?}", relative.cuts);
    }
}

#[test]
fn controllers_that_lack_a_part_are_convicted() {
    let hasty = Tuning { sigmas: 0.0, ..Tuning::DEFAULT };
    let cuts: usize = noisy().into_iter().map(|trial| tuned(trial, hasty).cuts).sum();
    assert!(cuts > 40, "without regard to chance: {cuts} cuts");
    let half = Trial { lost: 0.5, lag: 100, ..brown_out() };
    let uncovered = Tuning { coverage: false, ..Tuning::DEFAULT };
    let (with, without) = (goodput(&run(half, TERMS)), goodput(&tuned(half, uncovered)));
    assert!(without < with - 0.1, "without coverage {without:.3}, with it {with:.3}");
    let greedy = Tuning { keep: 1.2, ..Tuning::DEFAULT };
    let late = Trial { lag: 100, ..brown_out() };
    let (with, without) = (run(late, TERMS).bad, tuned(late, greedy).bad);
    assert!(2 * without > 3 * with, "sent more than it can: {without} failed, else {with}");
}

fn second(admitted: u64, ended: u64, failed: bool) -> Second {
    let mut second = Second { admitted, ..Second::default() };
    second.end(ended, Some(Duration::from_millis(50)), failed, Some(TARGET));
    second
}

fn observe(controller: &mut Controller, second: &Second, times: usize) -> Step {
    let each = || controller.observe(second, Duration::from_secs(1));
    std::iter::repeat_with(each).take(times).last().unwrap()
}

#[test]
fn scale_stays_without_reports_and_moves_again_with_them() {
    for form in [Form::Rate { per_second: 1_000.0 }, Form::Relative] {
        let mut controller = Controller::new(TERMS, form, 500);
        let silent = Second { admitted: 100, ..Second::default() };
        let step = observe(&mut controller, &silent, 9);
        assert!(!step.blind, "a moment of silence");
        let step = observe(&mut controller, &silent, 30);
        assert!((step.blind, step.scale) == (true, 500), "{form:?}: {step:?}");
        let step = observe(&mut controller, &second(100, 100, true), 3);
        assert!(!step.blind && step.scale < 500, "{form:?}: cuts by the first reports: {step:?}");
    }
}

#[test]
fn scale_stays_with_too_few_reports_and_moves_with_enough_also_in_an_overload() {
    for form in [Form::Rate { per_second: 1_000.0 }, Form::Relative] {
        let mut controller = Controller::new(TERMS, form, 500);
        let step = observe(&mut controller, &second(1_000, 10, false), 99);
        assert!(step.blind, "one in a hundred is reported");
        let frozen = step.scale;
        assert_eq!(observe(&mut controller, &second(1_000, 10, true), 9).scale, frozen);
        let step = observe(&mut controller, &second(100, 100, true), 9);
        assert!(!step.blind && step.scale < frozen, "{form:?}: reports in an overload: {step:?}");
        let low = step.scale;
        let step = observe(&mut controller, &second(500, 500, false), 99);
        assert!(!step.blind && step.scale > low, "{form:?}: {step:?}");
    }
}

#[test]
fn nothing_asked_is_nothing_to_protect() {
    for form in [Form::Rate { per_second: 1_000.0 }, Form::Relative] {
        let mut controller = Controller::new(TERMS, form, 300);
        let step = observe(&mut controller, &Second::default(), 20);
        assert_eq!((step.scale, step.blind), (400, false), "5 % each ten seconds");
        let step = observe(&mut controller, &Second::default(), 1_000);
        assert_eq!(step.scale, 1_000);
    }
}

fn any_second() -> impl Strategy<Value = Second> {
    let count = || prop_oneof![0..50_u64, 0..10_000_u64, Just(u64::MAX)];
    let ends = (count(), 0..2_000_u64, any::<bool>());
    (count(), count(), ends).prop_map(|(admitted, left, (ended, millis, failed))| {
        let mut second = Second { admitted, left, ..Second::default() };
        second.end(ended, Some(Duration::from_millis(millis)), failed, Some(TARGET));
        second
    })
}

proptest! {
    #[test]
    fn scale_is_within_its_bounds_whatever_is_seen(
        seconds in proptest::collection::vec((any_second(), 0..3_000_u64), 1..60),
        (min, more, first) in (1..1_000_u16, 0..1_000_u16, 0..2_000_u16),
        rate in any::<bool>(),
        (errors, p95) in (any::<bool>(), any::<bool>()),
    ) {
        let max = (min + more).min(1_000);
        let terms = Terms {
            min,
            max,
            errors: errors.then_some(0.05),
            p95: p95.then_some(TARGET),
            ..TERMS
        };
        let form = if rate { Form::Rate { per_second: 0.01 } } else { Form::Relative };
        let mut controller = Controller::new(terms, form, first);
        for (second, millis) in seconds {
            let step = controller.observe(&second, Duration::from_millis(millis));
            prop_assert!((min..=max).contains(&step.scale), "{:?}", step);
        }
    }
}
