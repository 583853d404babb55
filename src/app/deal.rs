//! Deals connections to the cores by load: a call stays on the core of its connection, and one
//! connection may make more calls than a hundred others.

use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;

use crate::edge::listener::acceptor::{Accepted, Acceptor};
use crate::telemetry::sharded::ShardedGauge;

/// The least time over which the work of cores is compared.
const PERIOD: Duration = Duration::from_secs(1);

/// Work that differs by less counts as equal: per mille of a core.
const SAME_WORK: u64 = 50;

/// A core that takes connections.
#[derive(Clone, Debug)]
pub(super) struct Core {
    arrivals: UnboundedSender<Accepted>,
    runtime: Handle,
    /// Those that are open.
    connections: ShardedGauge,
}

impl Core {
    /// A core that takes connections from `arrivals` to `runtime`.
    pub(super) fn new(arrivals: UnboundedSender<Accepted>, runtime: Handle) -> Self {
        Self { arrivals, runtime, connections: ShardedGauge::default() }
    }

    /// The time that it has worked since it was started.
    fn worked(&self) -> Duration {
        let metrics = self.runtime.metrics();
        (0..metrics.num_workers()).map(|worker| metrics.worker_total_busy_duration(worker)).sum()
    }
}

/// Deals the connections of `acceptor` until `stop`.
pub(super) async fn deal(mut acceptor: Acceptor, cores: Vec<Core>, stop: CancellationToken) {
    let mut work = Work::new(&cores);
    for turn in 0_usize.. {
        let Some(accepted) = stop.run_until_cancelled(acceptor.accept()).await else { return };
        if cores.len() > 1 {
            work.look(&cores, Instant::now());
        }
        let loads: Vec<Load> = cores.iter().zip(&work.cores).map(Load::of).collect();
        let chosen = least_loaded(&loads, turn);
        if let (Some(core), Some(work)) = (cores.get(chosen), work.cores.get_mut(chosen)) {
            work.dealt += 1;
            // If the core has stopped, the connection is dropped. The client reconnects and reaches
            // another core.
            let _ = core.arrivals.send(accepted.counted_by(&core.connections));
        }
    }
}

/// The work of the cores, as of the last look.
struct Work {
    looked_at: Instant,
    cores: Vec<WorkOfCore>,
}

#[derive(Clone, Copy, Default)]
struct WorkOfCore {
    /// The time that it had worked at the last look.
    worked: Duration,
    /// Per mille of its time, between the last look and the one before. Where no connection came
    /// for an hour, that is over the hour.
    busy: u64,
    /// The connections that it was dealt since.
    dealt: usize,
}

impl Work {
    fn new(cores: &[Core]) -> Self {
        Self { looked_at: Instant::now(), cores: vec![WorkOfCore::default(); cores.len()] }
    }

    /// Looks at the cores, if the last look was a period ago.
    fn look(&mut self, cores: &[Core], now: Instant) {
        let passed = now.saturating_duration_since(self.looked_at);
        if passed < PERIOD {
            return;
        }
        self.looked_at = now;
        for (core, work) in cores.iter().zip(&mut self.cores) {
            let worked = core.worked();
            let more = worked.saturating_sub(work.worked).as_micros();
            let busy = more.saturating_mul(1_000) / passed.as_micros().max(1);
            *work = WorkOfCore { worked, busy: busy as u64, dealt: 0 };
        }
    }
}

/// The load of a core.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    /// Per mille of its time that it worked.
    busy: u64,
    connections: usize,
    /// Those of them whose work is not in `busy` yet.
    dealt: usize,
}

impl Load {
    fn of((core, work): (&Core, &WorkOfCore)) -> Self {
        let connections = usize::try_from(core.connections.get()).unwrap_or_default();
        Self { busy: work.busy, connections, dealt: work.dealt }
    }
}

/// The core for the next connection: the one that works least. A connection that was just dealt is
/// taken to make as much work as others do. Of cores that work the same, the one with the fewest
/// connections; of those, the next in `turn`.
fn least_loaded(loads: &[Load], turn: usize) -> usize {
    let busy: u64 = loads.iter().map(|load| load.busy).sum();
    let known: usize = loads.iter().map(|load| load.connections.saturating_sub(load.dealt)).sum();
    let each = busy / (known.max(1) as u64);
    let expected = |load: &Load| load.busy + each * load.dealt as u64;
    let least = loads.iter().map(expected).min().unwrap_or_default();
    let next = |core: &usize| (core + loads.len() - turn % loads.len().max(1)) % loads.len();
    let works_least = |(_, load): &(usize, &Load)| expected(load) < least + SAME_WORK;
    let fitting = loads.iter().enumerate().filter(works_least);
    let chosen = fitting.min_by_key(|(core, load)| (load.connections, next(core)));
    chosen.map_or(0, |(core, _)| core)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use tokio::runtime::Builder;
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;

    fn load((busy, connections, dealt): (u64, usize, usize)) -> Load {
        Load { busy, connections, dealt }
    }

    /// The connections of each core after so many more are dealt.
    fn dealt(loads: &[(u64, usize, usize)], many: usize) -> Vec<usize> {
        let mut loads: Vec<Load> = loads.iter().copied().map(load).collect();
        for turn in 0..many {
            let chosen = least_loaded(&loads, turn);
            let chosen = &mut loads[chosen];
            chosen.connections += 1;
            chosen.dealt += 1;
        }
        loads.iter().map(|load| load.connections).collect()
    }

    #[test]
    fn idle_cores_get_the_same_number_of_connections() {
        assert_eq!(dealt(&[(0, 0, 0); 3], 7), [3, 2, 2]);
        assert_eq!(dealt(&[(9, 5, 0), (0, 1, 0), (40, 3, 0)], 6), [5, 5, 5]);
    }

    #[test]
    fn busy_core_gets_none_until_the_others_are_as_busy() {
        assert_eq!(dealt(&[(900, 1, 0), (100, 9, 0)], 4), [1, 13]);
        // Each connection is taken to make a tenth of the work of a core.
        let after = dealt(&[(900, 1, 0), (100, 9, 0)], 12);
        assert_eq!(after.iter().sum::<usize>(), 22);
        assert!((1..=5).contains(&after[0]), "{after:?}");
    }

    /// The runtimes are real: what tokio counts is what their threads do.
    #[test]
    fn core_that_works_is_known_by_its_runtime() {
        let stop = CancellationToken::new();
        let start = |busy: bool| {
            let runtime = Builder::new_current_thread().build().unwrap();
            let core = Core::new(unbounded_channel().0, runtime.handle().clone());
            let stop = stop.clone();
            let run = async move {
                while busy && !stop.is_cancelled() {
                    tokio::task::yield_now().await;
                }
                stop.cancelled().await;
            };
            (core, thread::spawn(move || runtime.block_on(run)))
        };
        let (cores, threads): (Vec<_>, Vec<_>) = [true, false].map(start).into_iter().unzip();
        let mut work = Work::new(&cores);
        while cores[0].worked() < PERIOD / 5 {
            thread::yield_now();
        }
        let looked_at = work.looked_at;
        work.look(&cores, looked_at + PERIOD);
        stop.cancel();
        for thread in threads {
            thread.join().unwrap();
        }
        let loads: Vec<Load> = cores.iter().zip(&work.cores).map(Load::of).collect();
        assert!(loads[0].busy >= 200 && loads[1].busy < 100, "{loads:?}");
        assert_eq!([0, 1].map(|turn| least_loaded(&loads, turn)), [1, 1]);
    }

    #[test]
    fn turns_decide_between_equals_and_one_core_gets_all() {
        let equal = [load((100, 2, 0)); 3];
        assert_eq!([0, 1, 2, 3, 4].map(|turn| least_loaded(&equal, turn)), [0, 1, 2, 0, 1]);
        assert_eq!(dealt(&[(1_000, 4, 0)], 3), [7]);
    }
}
