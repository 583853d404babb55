//! Two sides that take turns, and the median of the ratios of neighbours.

use std::time::Duration;

use crate::drive::Driver;
use crate::load::Load;
use crate::sample::{Figure, Sample, median};
use crate::servers::{Running, Server};
use crate::store::{Store, StoreKind, Stores};
use crate::support::redis::RedisServer;
use crate::table::{Line, Target, short};

/// How often and how long to measure.
#[derive(Clone, Copy, Debug)]
pub struct Rounds {
    pub count: usize,
    pub duration: Duration,
}

/// What one side does.
#[derive(Clone, Debug)]
pub enum Work {
    /// Serves calls.
    Serve(Server, Load),
    /// Has Redis do what it can.
    Drive(Driver),
}

impl Work {
    const fn store(&self) -> StoreKind {
        match self {
            Self::Serve(Server::Bare(_), _) => StoreKind::Memory,
            Self::Serve(Server::Tollgate(gate), _) => gate.store,
            Self::Drive(_) => StoreKind::Standalone,
        }
    }

    fn refusal(&self) -> Option<String> {
        match self {
            Self::Serve(Server::Tollgate(gate), _) => gate.refusal(),
            Self::Serve(Server::Bare(_), _) | Self::Drive(_) => None,
        }
    }

    fn start<'s>(&self, stores: &'s Stores, pinned: bool) -> Started<'s> {
        let store = stores.get(self.store());
        match self {
            Self::Serve(server, load) => Started::Serving {
                server: Box::new(server.start(store, pinned)),
                load: *load,
                store,
                pinned,
            },
            Self::Drive(driver) => Started::Driving { driver: *driver, redis: &store.servers()[0] },
        }
    }
}

enum Started<'s> {
    Serving { server: Box<Running>, load: Load, store: &'s Store, pinned: bool },
    Driving { driver: Driver, redis: &'s RedisServer },
}

impl Started<'_> {
    /// Ready to be measured: its rate is known.
    fn paced(self, duration: Duration) -> Self {
        match self {
            Self::Serving { server, load, store, pinned } => {
                let load = load.paced(&server, store, pinned, duration);
                Self::Serving { server, load, store, pinned }
            }
            driving @ Self::Driving { .. } => driving,
        }
    }

    fn sample(&self, duration: Duration) -> Sample {
        match self {
            Self::Serving { server, load, store, pinned } => {
                load.run(server, store, *pinned, duration)
            }
            Self::Driving { driver, redis } => driver.sample(redis, duration),
        }
    }
}

/// A row: one side over the other.
#[derive(Clone, Debug)]
pub struct Comparison {
    pub name: String,
    pub what: String,
    /// The figures of the ratio, each a line of its own, and what it has to be.
    pub figures: Vec<(Figure, Target)>,
    /// The server on one core, callers and Redis on the other; else wherever the kernel puts them.
    pub pinned: bool,
    pub ours: Work,
    pub beside: Work,
}

impl Comparison {
    /// Measures both sides in turn; where tollgate cannot be set up like this, says so.
    pub fn run(&self, rounds: &Rounds) -> Vec<Line> {
        if let Some(refused) = self.ours.refusal().or_else(|| self.beside.refusal()) {
            eprintln!("{}: not built: {refused}", self.name);
            let why = format!("not built: {refused}");
            return self.lines(|_| (Err(why.clone()), String::new()));
        }
        let stores = Stores::start([self.ours.store(), self.beside.store()], self.pinned);
        let beside = self.beside.start(&stores, self.pinned).paced(rounds.duration);
        let ours = self.ours.start(&stores, self.pinned).paced(rounds.duration);
        let samples: Vec<(Sample, Sample)> = (1..=rounds.count)
            .map(|round| {
                let show = |side: &str, sample: Sample| {
                    let Self { name, .. } = self;
                    eprintln!("{name} {round}/{} {side:<6} {}", rounds.count, sample.show());
                    sample
                };
                let beside = show("beside", beside.sample(rounds.duration));
                (show("ours", ours.sample(rounds.duration)), beside)
            })
            .collect();
        self.lines(|figure| (Ok(ratio(figure, &samples)), absolute(figure, &samples)))
    }

    fn lines(&self, of: impl Fn(Figure) -> (Result<f64, String>, String)) -> Vec<Line> {
        let line = |(figure, target): &(Figure, Target)| {
            let (ratio, absolute) = of(*figure);
            Line {
                name: self.name.clone(),
                what: format!("{}, {}", self.what, figure.name()),
                figure: ratio,
                target: *target,
                absolute,
            }
        };
        self.figures.iter().map(line).collect()
    }
}

fn ratio(figure: Figure, samples: &[(Sample, Sample)]) -> f64 {
    let of = |(ours, beside): &(Sample, Sample)| figure.of(ours) / figure.of(beside);
    median(samples.iter().map(of).collect())
}

/// The medians of both sides, and whatever else must not be overlooked.
fn absolute(figure: Figure, samples: &[(Sample, Sample)]) -> String {
    let (ours, beside): (Vec<&Sample>, Vec<&Sample>) =
        samples.iter().map(|(ours, beside)| (ours, beside)).unzip();
    format!("{} against {}", side(figure, &ours), side(figure, &beside))
}

fn side(figure: Figure, samples: &[&Sample]) -> String {
    let middle =
        |of: &dyn Fn(&Sample) -> f64| median(samples.iter().map(|sample| of(sample)).collect());
    let mut details = Vec::new();
    if figure != Figure::P99 && figure != Figure::CallsPerSecond {
        details.push(format!("{}/s", short(middle(&|sample| sample.calls_per_second))));
        let p99 = middle(&|sample| sample.p99_ms);
        if p99 > 0.0 {
            details.push(format!("p99 {p99:.1} ms"));
        }
        let redis: Option<Vec<f64>> = samples.iter().map(|sample| sample.redis_cpu).collect();
        details.extend(redis.map(|busy| format!("Redis {:.0} % busy", 100.0 * median(busy))));
    }
    details.extend(samples.iter().flat_map(|sample| sample.remarks.clone()));
    let shown = figure.show(middle(&|sample| figure.of(sample)));
    if details.is_empty() { shown } else { format!("{shown} ({})", details.join(", ")) }
}
