//! The number of replicas that share the store, and the place of this one among them, as the
//! heartbeats say.
//!
//! The share of a limit rests on the number: counting too few replicas admits too much. So the
//! largest count of the last answered beats holds, and beats that are not answered age nothing. A
//! scale-down is believed after [`REMEMBERED`] beats, a restart of Redis with empty memory not at
//! all.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;

/// The number of answered beats whose largest count holds. A beat comes about every second.
pub const REMEMBERED: usize = 300;

/// The number of replicas where nothing else is known. 1 would be a whole further capacity for each
/// replica when all start without the store.
pub const UNKNOWN: u32 = 8;

/// The place of a process among the replicas.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Place {
    /// The number of replicas, at least 1.
    pub replicas: u32,
    /// The place of this process among them, from 0.
    pub rank: u32,
    /// The source of the number.
    pub source: Source,
}

/// The source of the number of replicas.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Source {
    /// There is no store to share: the process is alone.
    Alone,
    /// The heartbeats.
    Beats,
    /// The setting `failover.replicas`, which is more than beats say.
    Setting,
    /// Nothing: no beat was answered, and the setting is unset.
    Unknown,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Alone => "the process is alone",
            Self::Beats => "seen in Redis",
            Self::Setting => "failover.replicas",
            Self::Unknown => "not known; set failover.replicas",
        })
    }
}

/// The count of replicas. Shared by the heartbeat, which writes it, and the failover layers.
#[derive(Debug)]
pub struct Replicas {
    id: u128,
    /// The least number, from the settings.
    least: Option<u32>,
    alone: bool,
    /// The count of the last answered beat, at least 1. Decisions only read it.
    seen: AtomicU32,
    /// Count and rank of the last answered beats, oldest first.
    beats: Mutex<VecDeque<(u32, u32)>>,
    /// The place that holds for the loss of the store under way. Decisions only read it.
    loss: ArcSwapOption<Place>,
}

impl Replicas {
    /// Nothing is known yet of the replicas beside the process `id`; there are at least `least`.
    pub fn new(id: u128, least: Option<u32>) -> Self {
        let (beats, loss) = (Mutex::default(), ArcSwapOption::empty());
        Self { id, least, alone: false, seen: AtomicU32::new(1), beats, loss }
    }

    /// The process shares its store with no other.
    pub fn alone() -> Self {
        Self { alone: true, ..Self::new(0, None) }
    }

    /// The name of this process among the replicas.
    pub const fn id(&self) -> u128 {
        self.id
    }

    /// Notes an answered beat, which has seen these processes.
    pub fn note(&self, seen: &[u128]) {
        let rank = seen.iter().filter(|other| **other < self.id).count() as u32;
        let others = seen.iter().filter(|other| **other != self.id).count() as u32;
        let count = others.saturating_add(1);
        self.seen.store(count, Ordering::Relaxed);
        let mut beats = self.beats.lock();
        if beats.len() >= REMEMBERED {
            beats.pop_front();
        }
        beats.push_back((count, rank));
    }

    /// The number of replicas that the last answered beat has seen; 1 before any. For estimates:
    /// a restart of Redis with empty memory is believed at once.
    pub fn seen(&self) -> u32 {
        self.seen.load(Ordering::Relaxed)
    }

    /// The place by the beats so far.
    pub fn now(&self) -> Place {
        self.place(&self.beats.lock())
    }

    /// The place for decisions without the store. It stays the same for the whole of a loss, which
    /// begins with the first of them.
    pub fn of_loss(&self) -> Place {
        if let Some(place) = &*self.loss.load() {
            return **place;
        }
        // Under the lock, so that all decisions of a loss have the same place.
        let beats = self.beats.lock();
        if let Some(place) = &*self.loss.load() {
            return **place;
        }
        let place = self.place(&beats);
        self.loss.store(Some(Arc::new(place)));
        place
    }

    /// The place of the loss under way, or else by the beats so far. Begins no loss.
    pub fn current(&self) -> Place {
        let loss = self.loss.load().as_deref().copied();
        loss.unwrap_or_else(|| self.now())
    }

    /// The loss is over: the next one has the place of that time.
    pub fn end_loss(&self) {
        self.loss.store(None);
    }

    fn place(&self, beats: &VecDeque<(u32, u32)>) -> Place {
        if self.alone {
            return Place { replicas: 1, rank: 0, source: Source::Alone };
        }
        // Of equal counts the newest: `max_by_key` takes the last.
        let seen = beats.iter().max_by_key(|(count, _)| *count).copied();
        match (seen, self.least) {
            (Some((count, rank)), least) if least.is_none_or(|least| least <= count) => {
                Place { replicas: count, rank, source: Source::Beats }
            }
            (Some((_, rank)), Some(least)) => {
                Place { replicas: least, rank, source: Source::Setting }
            }
            (_, least) => {
                let replicas = least.unwrap_or(UNKNOWN).max(1);
                let source = if least.is_some() { Source::Setting } else { Source::Unknown };
                Place { replicas, rank: (self.id % u128::from(replicas)) as u32, source }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: u128 = 50;

    fn place(replicas: u32, rank: u32, source: Source) -> Place {
        Place { replicas, rank, source }
    }

    #[test]
    fn largest_remembered_count_holds_with_its_newest_rank() {
        let replicas = Replicas::new(ME, None);
        assert_eq!(replicas.seen(), 1, "before any beat");
        replicas.note(&[10, ME, 90]);
        replicas.note(&[10, 20, ME]);
        assert_eq!(replicas.seen(), 3);
        replicas.note(&[ME]);
        assert_eq!((replicas.now(), replicas.seen()), (place(3, 2, Source::Beats), 1));
        for _ in 0..REMEMBERED - 2 {
            replicas.note(&[ME]);
        }
        assert_eq!(replicas.now(), place(3, 2, Source::Beats), "still remembered");
        replicas.note(&[ME]);
        assert_eq!(replicas.now(), place(1, 0, Source::Beats), "a scale-down is believed");
    }

    #[test]
    fn process_that_its_beat_has_not_seen_counts_itself() {
        let replicas = Replicas::new(ME, None);
        replicas.note(&[10, 90]);
        assert_eq!(replicas.now(), place(3, 1, Source::Beats));
    }

    #[test]
    fn setting_is_the_least_number() {
        let replicas = Replicas::new(ME, Some(3));
        assert_eq!(replicas.now(), place(3, (ME % 3) as u32, Source::Setting));
        replicas.note(&[ME, 60]);
        assert_eq!(replicas.now(), place(3, 0, Source::Setting));
        replicas.note(&[ME, 60, 70, 80]);
        assert_eq!(replicas.now(), place(4, 0, Source::Beats));
    }

    #[test]
    fn without_beat_and_setting_there_are_eight() {
        assert_eq!(Replicas::new(ME, None).now(), place(8, 2, Source::Unknown));
        assert_eq!(Replicas::alone().now(), place(1, 0, Source::Alone));
    }

    #[test]
    fn place_stays_for_the_whole_of_a_loss() {
        let replicas = Replicas::new(ME, None);
        replicas.note(&[10, ME]);
        assert_eq!(replicas.current().replicas, 2);
        replicas.note(&[10, ME, 90]);
        assert_eq!(replicas.of_loss().replicas, 3, "asking begins no loss");
        replicas.note(&[10, 20, ME, 90]);
        assert_eq!((replicas.of_loss().replicas, replicas.current().replicas), (3, 3));
        replicas.end_loss();
        assert_eq!(replicas.of_loss().replicas, 4);
    }
}
