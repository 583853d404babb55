//! The verdict on a run: no limit exceeded, nothing degraded, nothing failed but at killed
//! replicas; and enough was done to say so.

use std::time::Duration;

use tollgate::verify::{Finding, Worst};

use crate::callers::{Failure, Seen};
use crate::changes::Changed;
use crate::fleet::{Fleet, REPLICAS};
use crate::run::LOAD;
use crate::watched::{Change, Watched};

/// The least number of times that each replica is killed.
const MIN_KILLS: usize = 2;
const MIN_POLICIES: usize = 15;
const MIN_CLIENTS: usize = 50;
const MIN_REFUSED: usize = 10;
/// The time in which a caller finds a replica again.
const SLACK: Duration = Duration::from_secs(1);

/// All that a run has seen.
pub struct Run {
    pub seen: Seen,
    pub policies: Changed,
    pub clients: Changed,
    pub fleet: Fleet,
}

impl Run {
    /// Prints what was done, and panics with all that is wrong with it.
    pub fn judge(&self) {
        self.print();
        let of_limits = Watched::all().into_iter().zip(&self.seen.traces);
        let of_limits = of_limits
            .flat_map(|(watched, trace)| faults(watched, &watched.promise().finding(trace)));
        let faults: Vec<String> = of_limits.chain(self.faults()).collect();
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    }

    fn print(&self) {
        let (policies, clients) = (self.policies.times, self.clients.times);
        println!(
            "{} answers, {} calls failed, {:?} kills, {policies} changes of policies with {} \
             reloads, {clients} changes of clients",
            self.seen.answers,
            self.failures().count(),
            self.kills(),
            self.fleet.reloads,
        );
    }

    /// All that is wrong beside the limits.
    fn faults(&self) -> Vec<String> {
        let mut faults = self.fleet.errors.clone();
        faults.extend(self.seen.degraded.iter().map(|answer| format!("degraded: {answer}")));
        let at_no_kill = self.failures().filter(|failure| !self.is_of_a_kill(failure));
        faults.extend(at_no_kill.map(|failure| {
            let Failure { replica, sent, status, .. } = failure;
            format!("replica {replica}, alive, failed at {sent:?}: {status}")
        }));
        let done = [
            ("kills of a replica", self.kills().into_iter().min().unwrap_or(0), MIN_KILLS),
            ("changes of policies", self.policies.times, MIN_POLICIES),
            ("reloads", self.fleet.reloads as usize, MIN_POLICIES),
            ("changes of clients", self.clients.times, MIN_CLIENTS),
        ];
        let few = done.into_iter().filter(|(_, done, least)| done < least);
        faults.extend(few.map(|(what, done, least)| format!("{done} {what}, at least {least}")));
        faults
    }

    fn kills(&self) -> Vec<usize> {
        (0..REPLICAS).map(|replica| self.fleet.kills(replica)).collect()
    }

    fn failures(&self) -> impl Iterator<Item = &Failure> {
        self.seen.failures.iter().chain(&self.policies.failures).chain(&self.clients.failures)
    }

    fn is_of_a_kill(&self, failure: &Failure) -> bool {
        let slack = u64::try_from(SLACK.as_micros()).unwrap();
        self.fleet.outages.iter().any(|outage| {
            outage.replica == failure.replica
                && failure.received >= outage.from
                && failure.sent <= outage.to.plus_micros(slack)
        })
    }
}

/// All that is wrong with the calls of one limit.
fn faults(watched: Watched, finding: &Finding) -> Vec<String> {
    let promise = watched.promise();
    let Finding { admitted, refused, needless, .. } = *finding;
    let efficiency = finding.efficiency().unwrap_or_default();
    let excess = finding.worst.map_or(0.0, |worst| worst.excess().max(0.0));
    let line = format!(
        "{}: {promise}: {admitted} admitted, {refused} refused, excess {excess:.2}, efficiency \
         {efficiency:.3}, {} needless",
        watched.key(),
        needless.unwrap_or_default()
    );
    println!("{line}");
    let least = least_efficiency(watched.change);
    let most = f64::from(promise.limit().requests()) * LOAD.as_secs_f64();
    let mut faults = Vec::new();
    if let Some(worst) = finding.worst.filter(Worst::is_excess) {
        faults.push(format!("exceeded: {worst}, {line}"));
    }
    if efficiency < least || (admitted as f64) < least * most {
        faults.push(format!("less than {least} of the limit: {line}"));
    }
    if refused < MIN_REFUSED {
        faults.push(format!("fewer than {MIN_REFUSED} refused: {line}"));
    }
    faults
}

/// The least share of what an exact limiter admits. Killed replicas take hits with them. A limit
/// that changes is half as large for half of the time, and a client's is also 0.
fn least_efficiency(change: Change) -> f64 {
    match change {
        Change::Never | Change::Own => 0.6,
        Change::File | Change::Policy => 0.55,
        Change::Client => 0.35,
    }
}
