//! The report of a check, for people or as JSON.

use serde_json::{Value, json};
use tollgate::telemetry::escape::escape;

use super::judge::{Row, Verdict};
use crate::cli::exit::{Failure, Outcome};

/// A verdict, and how much of it to show.
#[derive(Debug)]
pub(crate) struct Report {
    pub(super) verdict: Verdict,
    /// The number of counters to show.
    pub(super) shown: usize,
}

impl Report {
    /// Fails if a promise was broken.
    pub(crate) fn outcome(&self) -> Outcome {
        if self.broken() == 0 { Ok(()) } else { Err(Failure::Silent) }
    }

    /// Lines for people.
    pub(crate) fn text(&self) -> String {
        let Verdict { rows, not_judged, admitted, refused } = &self.verdict;
        let mut text = String::new();
        let mut line = |line: String| text.push_str(&(line + "\n"));
        let broken = self.broken();
        let calls = format!("{admitted} calls admitted, {refused} refused");
        match broken {
            0 => line(format!("held: {} counters, {calls}", rows.len())),
            _ => line(format!("convicted: {broken} of {} counters, {calls}", rows.len())),
        }
        for (reason, keys) in not_judged {
            line(format!("not judged: {keys} keys {reason}"));
        }
        let (needless, of) = self.needless();
        if of > 0 {
            line(format!("needless refusals: {needless} of {of}"));
        }
        if let Some(efficiency) = self.efficiency() {
            line(format!("efficiency: {efficiency:.3} of the hits that an exact limiter admits"));
        }
        for row in rows.iter().take(self.shown) {
            line(String::new());
            line(format!("{}  {}", escape(row.counter.as_bytes()), row.promise));
            row_lines(row).into_iter().for_each(&mut line);
        }
        if rows.len() > self.shown {
            line(format!("\n{} more counters; --show N shows more", rows.len() - self.shown));
        }
        text
    }

    /// The same as JSON.
    pub(crate) fn json(&self) -> Value {
        let Verdict { rows, not_judged, admitted, refused } = &self.verdict;
        let (needless, judged) = self.needless();
        json!({
            "held": self.broken() == 0,
            "counters": rows.len(),
            "convicted": self.broken(),
            "admitted": admitted,
            "refused": refused,
            "needless": (judged > 0).then_some(needless),
            "efficiency": self.efficiency(),
            "not_judged": not_judged,
            "worst": rows.iter().take(self.shown).map(row_json).collect::<Vec<_>>(),
        })
    }

    fn broken(&self) -> usize {
        self.verdict.rows.iter().filter(|row| !row.finding.holds()).count()
    }

    /// Needless refusals, of how many.
    fn needless(&self) -> (usize, usize) {
        let found = self.verdict.rows.iter().map(|row| row.finding);
        let found = found.filter_map(|finding| Some((finding.needless?, finding.refused)));
        found.fold((0, 0), |sum, (needless, refused)| (sum.0 + needless, sum.1 + refused))
    }

    fn efficiency(&self) -> Option<f64> {
        let found = self.verdict.rows.iter().map(|row| row.finding);
        let found = found.filter_map(|finding| Some((finding.hits, finding.exact_hits?)));
        let (hits, exact) =
            found.fold((0.0, 0.0), |(hits, exact), (h, e)| (hits + h as f64, exact + e as f64));
        (exact > 0.0).then(|| hits / exact)
    }
}

fn row_lines(Row { finding, .. }: &Row) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(worst) = finding.worst {
        let name = if worst.is_excess() { "excess " } else { "closest" };
        lines.push(format!("  {name}   {worst}"));
    }
    let calls = format!("  calls     {} admitted, {} refused", finding.admitted, finding.refused);
    let needless = finding.needless.filter(|_| finding.refused > 0);
    let needless = needless.map(|needless| format!(", {needless} of them needlessly"));
    let efficiency = finding.efficiency().map(|share| format!("; efficiency {share:.3}"));
    lines.push(calls + &needless.unwrap_or_default() + &efficiency.unwrap_or_default());
    lines
}

fn row_json(Row { counter, promise, finding }: &Row) -> Value {
    let worst = finding.worst.map(|worst| {
        json!({
            "from_us": worst.from,
            "to_us": worst.to,
            "hits": worst.hits,
            "allowed": worst.allowed(),
            "excess": worst.excess(),
        })
    });
    json!({
        "counter": counter,
        "limit": promise.to_string(),
        "held": finding.holds(),
        "admitted": finding.admitted,
        "refused": finding.refused,
        "needless": finding.needless,
        "efficiency": finding.efficiency(),
        "interval": worst,
    })
}
