//! Calls with a wrong token, slowed down for each peer and logged at a bounded rate.
//!
//! The first few are answered at once, for people who mistype. Then a peer gets one answer a
//! second. Only a bounded number of calls waits; while so many do, every further call of that peer
//! is refused unseen.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// The failures of a peer that are answered at once.
const FREE: u32 = 3;
/// The interval between the answers to the others.
const GAP: Duration = Duration::from_secs(1);
/// The most failures of a peer that wait for their answer.
const MOST_WAITING: u32 = 16;
/// The time after which the failures of a peer are forgotten.
const FORGET_AFTER: Duration = Duration::from_mins(1);
/// The most peers that are remembered; all others count as one.
const MOST_PEERS: usize = 1_024;
/// The interval between log lines.
const LOG_EVERY: Duration = Duration::from_secs(1);

/// The failures of all peers.
#[derive(Debug, Default)]
pub(super) struct Failures(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    by_peer: HashMap<IpAddr, OfPeer>,
    others: OfPeer,
    logged: Option<Instant>,
    /// Failures since the last line without one.
    silent: u64,
}

#[derive(Debug, Default)]
struct OfPeer {
    count: u32,
    waiting: u32,
    last: Option<Instant>,
    /// The time of the last answer that was promised.
    answered: Option<Instant>,
}

/// A failure that waits for its answer; dropped, it waits no more.
struct Waiting<'a> {
    failures: &'a Failures,
    peer: IpAddr,
}

impl Failures {
    /// True if so many calls of `peer` wait that no other is looked at.
    pub(super) fn is_flooded_by(&self, peer: IpAddr) -> bool {
        self.0.lock().of(peer).waiting >= MOST_WAITING
    }

    /// Notes a failure of `peer`, and waits until it may be answered.
    pub(super) async fn slow_down(&self, peer: IpAddr) {
        let until = {
            let mut state = self.0.lock();
            let of_peer = state.of(peer);
            let Some(until) = of_peer.fail(Instant::now()) else { return };
            of_peer.waiting += 1;
            until
        };
        let _waiting = Waiting { failures: self, peer };
        tokio::time::sleep_until(until).await;
    }

    /// The number of failures that were not logged since the last line, if one is due.
    pub(super) fn line_is_due(&self) -> Option<u64> {
        let (now, mut state) = (Instant::now(), self.0.lock());
        if state.logged.is_some_and(|at| now < at + LOG_EVERY) {
            state.silent += 1;
            return None;
        }
        state.logged = Some(now);
        Some(std::mem::take(&mut state.silent))
    }
}

impl State {
    fn of(&mut self, peer: IpAddr) -> &mut OfPeer {
        let now = Instant::now();
        if self.by_peer.len() >= MOST_PEERS && !self.by_peer.contains_key(&peer) {
            self.by_peer.retain(|_, of_peer| !of_peer.is_over(now));
            if self.by_peer.len() >= MOST_PEERS {
                return &mut self.others;
            }
        }
        self.by_peer.entry(peer).or_default()
    }
}

impl OfPeer {
    fn is_over(&self, now: Instant) -> bool {
        self.waiting == 0 && self.last.is_none_or(|last| now >= last + FORGET_AFTER)
    }

    /// Counts a failure; the time of its answer, if that is not now.
    fn fail(&mut self, now: Instant) -> Option<Instant> {
        if self.is_over(now) {
            *self = Self::default();
        }
        self.count = self.count.saturating_add(1);
        self.last = Some(now);
        if self.count <= FREE {
            return None;
        }
        let until = self.answered.map_or(now, |last| last.max(now)) + GAP;
        self.answered = Some(until);
        Some(until)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.failures.0.lock();
        let of_peer = state.of(self.peer);
        of_peer.waiting = of_peer.waiting.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[tokio::test(start_paused = true)]
    async fn failures_of_a_peer_are_answered_once_a_second_and_others_at_once() {
        let failures = Failures::default();
        let begun = Instant::now();
        for answered in [0, 0, 0, 1, 2, 3] {
            failures.slow_down(PEER).await;
            assert_eq!(begun.elapsed().as_secs(), answered);
        }
        failures.slow_down([127, 0, 0, 2].into()).await;
        assert_eq!(begun.elapsed().as_secs(), 3);
        tokio::time::advance(FORGET_AFTER).await;
        let begun = Instant::now();
        failures.slow_down(PEER).await;
        assert_eq!(begun.elapsed().as_secs(), 0, "forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn peer_with_too_many_waiting_is_not_looked_at_until_they_are_answered_or_gone() {
        let failures = Arc::new(Failures::default());
        let mut waiting = Vec::new();
        for _ in 0..FREE + MOST_WAITING {
            assert!(!failures.is_flooded_by(PEER));
            let failures = Arc::clone(&failures);
            waiting.push(tokio::spawn(async move { failures.slow_down(PEER).await }));
            tokio::task::yield_now().await;
        }
        assert!(failures.is_flooded_by(PEER));
        assert!(!failures.is_flooded_by([127, 0, 0, 2].into()));
        waiting.pop().unwrap().abort();
        tokio::task::yield_now().await;
        assert!(!failures.is_flooded_by(PEER));
    }

    #[tokio::test(start_paused = true)]
    async fn peers_beyond_the_bound_count_as_one() {
        let failures = Failures::default();
        for i in 0..=u32::try_from(MOST_PEERS + 10).unwrap() {
            for _ in 0..FREE {
                failures.slow_down(IpAddr::from(i.to_be_bytes())).await;
            }
            if failures.0.lock().by_peer.len() == MOST_PEERS {
                break;
            }
        }
        for _ in 0..FREE {
            failures.slow_down([250, 0, 0, 1].into()).await;
        }
        let begun = Instant::now();
        failures.slow_down([250, 0, 0, 2].into()).await;
        assert_eq!(begun.elapsed(), GAP);
        assert_eq!(failures.0.lock().by_peer.len(), MOST_PEERS);
    }

    #[tokio::test(start_paused = true)]
    async fn lines_are_a_second_apart_and_say_how_many_are_missing() {
        let failures = Failures::default();
        assert_eq!(failures.line_is_due(), Some(0));
        assert_eq!((failures.line_is_due(), failures.line_is_due()), (None, None));
        tokio::time::advance(LOG_EVERY).await;
        assert_eq!(failures.line_is_due(), Some(2));
    }
}
