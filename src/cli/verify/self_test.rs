//! `tollgate verify --self-test`: the checker has to convict impostors and to acquit right
//! limiters.

use tollgate::verify::{Promise, Trace};

use super::impostors::{Leases, QUICK, SLOW, calls};
use crate::cli::exit::{Failure, Outcome};

/// Lives of replicas with leases; one excess is enough.
const LIVES: u64 = 6;

/// A limiter, the promise it is sold as, and the right verdict.
struct Case {
    limiter: &'static str,
    traces: Vec<Trace>,
    promise: &'static str,
    is_impostor: bool,
}

/// Prints a table of limiters and verdicts.
///
/// # Errors
/// Fails if a verdict is wrong.
pub(super) fn run() -> Outcome {
    println!("{:36} {:36} {:>8}  verdict", "limiter", "sold as", "excess");
    let mut wrong = 0;
    for case in cases()? {
        let (excess, convicted) = case.worst()?;
        let verdict = if convicted { "convicted" } else { "held" };
        let note = if convicted == case.is_impostor { "" } else { ", WRONG" };
        let Case { limiter, promise, .. } = case;
        println!("{limiter:36} {promise:36} {excess:>+8.2}  {verdict}{note}");
        wrong += usize::from(convicted != case.is_impostor);
    }
    if wrong == 0 {
        println!("the checker convicts every impostor and no other");
        return Ok(());
    }
    Err(Failure::Failed(format!("{wrong} verdicts are wrong: do not trust this checker")))
}

impl Case {
    /// The largest excess over all traces, and true if it convicts.
    fn worst(&self) -> Result<(f64, bool), Failure> {
        let promise = promise(self.promise)?;
        let worst = self.traces.iter().filter_map(|trace| promise.worst(trace));
        let worst = worst.max_by(|one, other| one.excess().total_cmp(&other.excess()));
        let none = || Failure::Failed(format!("{}: it admitted nothing", self.limiter));
        let worst = worst.ok_or_else(none)?;
        Ok((worst.excess(), worst.is_excess()))
    }
}

fn promise(text: &str) -> Result<Promise, Failure> {
    text.parse().map_err(Failure::Failed)
}

fn cases() -> Result<Vec<Case>, Failure> {
    let decided =
        |limit: &str| Ok::<_, Failure>(vec![calls(promise(limit)?.limit(), 200, 20, QUICK)]);
    let leased = |has_floor| (0..LIVES).map(|seed| Leases::admissions(has_floor, seed)).collect();
    let (fixed, sliding) = (decided("fixed_window 50/s")?, decided("sliding_window 50/s")?);
    let faster = calls(promise("sliding_window 1010/s")?.limit(), 3_000, 30, SLOW);
    let case = |limiter, traces: &[Trace], promise, is_impostor| Case {
        limiter,
        traces: traces.to_vec(),
        promise,
        is_impostor,
    };
    let bucket = "token_bucket 50/s burst 50";
    let leases = "token_bucket 10/s burst 100";
    Ok(vec![
        case("fixed window 50/s", &fixed, "sliding_window 50/s", true),
        case("fixed window 50/s", &fixed, bucket, true),
        Case {
            limiter: "leases debited plainly",
            traces: leased(false),
            promise: leases,
            is_impostor: true,
        },
        case("sliding window 1010/s, slow answers", &[faster], "sliding_window 1000/s", true),
        case("sliding window 50/s", &sliding, "sliding_window 50/s", false),
        case("token bucket 50/s, burst 50", &decided(bucket)?, bucket, false),
        case("fixed window 50/s", &fixed, "fixed_window 50/s", false),
        Case {
            limiter: "leases with a floor",
            traces: leased(true),
            promise: leases,
            is_impostor: false,
        },
    ])
}
