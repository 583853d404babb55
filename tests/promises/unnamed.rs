//! Holds without a handle against a model in plain numbers: each report ends the oldest hold, whose
//! cost counts from when it was made. So counted no window holds more than the limit, and what fits
//! is not refused.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::time::{Instant, advance};
use tollgate::domain::Verdict;
use tollgate::edge::grpc::convert::from_pb;
use tollgate::edge::pb;
use tollgate::limiter::Limiter;
use tollgate::store::LimitStore;
use tollgate::telemetry::metrics::Metrics;

use crate::random::Random;
use crate::remembered::limiter;

const LIMIT: u64 = 100;
const ESTIMATE: u64 = 10;
const WINDOW: u64 = 60;
/// The longest that a hold lasts.
const TTL: u64 = 20;
const TRACES: u64 = 200;
const STEPS: usize = 300;

/// The virtual time begins at this second.
const START: u64 = 1_700_000_000;

fn policy(algorithm: &str, holds: bool) -> String {
    let hold = format!("hold: {{unnamed: true, ttl: {TTL}s, estimate: {{default: {ESTIMATE}}}}}");
    let hold = if holds { hold } else { String::new() };
    // As many slots as hits: the window is exact.
    let slots = if algorithm == "sliding_window" { "slots: 100, " } else { "" };
    format!(
        "domain: d
descriptors:
  - key: k
    rate_limit: {{algorithm: {algorithm}, {slots}unit: minute, requests_per_unit: {LIMIT}, charge: settled, {hold}}}
"
    )
}

/// A call that was admitted, in seconds.
struct Hold {
    at: u64,
    /// The hits that it counts: the estimate, then the cost that ended it.
    counts: u64,
    ended: bool,
}

#[derive(Default)]
struct Model {
    holds: Vec<Hold>,
    /// Costs that were reported without a hold.
    charges: Vec<(u64, u64)>,
}

impl Model {
    /// The report of a cost; none: there was no hold.
    fn report(&mut self, cost: u64, now: u64) {
        let oldest = self.holds.iter_mut().find(|hold| !hold.ended && hold.at + TTL > now);
        match oldest {
            Some(hold) => (hold.counts, hold.ended) = (cost, true),
            None => self.charges.push((now, cost)),
        }
    }

    /// The hits in the window that ends with `now`, or that it is in.
    fn used(&self, algorithm: &str, now: u64) -> u64 {
        let counts = |at: u64| match algorithm {
            "fixed_window" => at / WINDOW == now / WINDOW,
            _ => at + WINDOW > now,
        };
        let holds = self.holds.iter().map(|hold| (hold.at, hold.counts));
        let all = holds.chain(self.charges.iter().copied());
        all.filter(|(at, _)| *at <= now && counts(*at)).map(|(_, hits)| hits).sum()
    }
}

/// True if a request with these hits is admitted.
async fn asks<S: LimitStore>(limiter: &Limiter<S>, hits: u64) -> bool {
    let entry = pb::rate_limit_descriptor::Entry { key: "k".into(), value: "v".into() };
    let descriptor = pb::RateLimitDescriptor {
        entries: vec![entry],
        hits_addend: Some(hits),
        ..pb::RateLimitDescriptor::default()
    };
    let request =
        pb::RateLimitRequest { domain: "d".into(), descriptors: vec![descriptor], hits_addend: 0 };
    let deadline = Instant::now().into();
    limiter.decide(&from_pb(&request).unwrap(), deadline).await.verdict == Verdict::Admit
}

/// The most hits beyond the limit in a window, and the peeks that were refused though they fit, or
/// admitted though not.
async fn run(algorithm: &str, holds: bool, seed: u64) -> (u64, usize) {
    let limiter = limiter(policy(algorithm, holds), &Arc::new(Metrics::new(0)));
    let (mut random, mut model, mut running) = (Random::new(seed), Model::default(), 0_u64);
    let (mut now, mut excess, mut wrong) = (START, 0_u64, 0);
    for _ in 0..STEPS {
        let seconds = random.pick(&[0, 0, 0, 1, 1, 5, 30]);
        advance(Duration::from_secs(seconds)).await;
        now += seconds;
        if random.chance(60) || running == 0 {
            let fits = model.used(algorithm, now) + ESTIMATE <= LIMIT;
            let admitted = asks(&limiter, 0).await;
            wrong += usize::from(admitted != fits);
            if admitted {
                model.holds.push(Hold { at: now, counts: ESTIMATE, ended: false });
                running += 1;
            }
        } else {
            // Any of those under way has ended; some reports are lost.
            running -= 1;
            if !random.chance(5) {
                let cost = 1 + random.up_to(ESTIMATE - 1);
                asks(&limiter, cost).await;
                model.report(cost, now);
            }
        }
        if model.charges.is_empty() {
            excess = excess.max(model.used(algorithm, now).saturating_sub(LIMIT));
        }
    }
    (excess, wrong)
}

fn each_trace(algorithm: &str, holds: bool) -> (u64, usize) {
    let all = (0..TRACES).map(|seed| {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(run(algorithm, holds, seed))
    });
    all.fold((0, 0), |(excess, wrong), (more, others)| (excess.max(more), wrong + others))
}

#[test]
fn holds_without_a_handle_keep_the_limit_and_refuse_nothing_that_fits() {
    for algorithm in ["fixed_window", "sliding_window"] {
        assert_eq!(each_trace(algorithm, true), (0, 0), "{algorithm}");
    }
}

/// The same calls by peeks and reports alone.
#[test]
fn peeks_and_reports_alone_overdraw_the_limit() {
    for algorithm in ["fixed_window", "sliding_window"] {
        let (excess, _) = each_trace(algorithm, false);
        assert!(excess > LIMIT / 10, "{algorithm}: {excess}");
    }
}
