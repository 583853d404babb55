//! The rows about the engines of the gRPC listener: each beside a bare server, and one beside the
//! other.

use crate::compare::{Comparison, Work};
use crate::load::{Load, Pace};
use crate::rows::{
    HOT, LEASED, MANY, ONE_AN_HOUR, ONE_KEY, REMEMBERED, SLIDING_WINDOW, TOKEN_BUCKET,
    WITHOUT_METADATA, tollgate,
};
use crate::sample::Figure;
use crate::servers::{Ceiling, Engine, Gate, Server};
use crate::table::{Line, Target};

/// A Redis that is not there.
const AWAY: &[&str] = &["redis.url=redis://127.0.0.1:1", "failover.replicas=1"];

const BARE_TONIC: &str = "bare-tonic";
const BARE_H2: &str = "bare-h2";

/// All of them, in the order of the table. Of the rows beside bare hyper, those that are wanted
/// bring the other ceilings with them.
pub fn comparisons(wanted: impl Fn(&str) -> bool) -> Vec<Comparison> {
    let mut all = ceilings();
    all.extend(beside_bare_hyper());
    all.extend(between_engines());
    let any_beside = beside_bare_hyper().iter().any(|row| wanted(&row.name));
    all.retain(|row| wanted(&row.name) || (any_beside && is_ceiling(&row.name)));
    all
}

fn is_ceiling(name: &str) -> bool {
    [BARE_TONIC, BARE_H2].contains(&name)
}

/// The figure of a row beside bare hyper over those of bare tonic and of bare h2 in `lines`, which
/// are measured with the usual load.
pub fn beside_other_ceilings(line: &Line, lines: &[Line]) -> String {
    let figure_of = |name: &str| lines.iter().find(|line| line.name == name)?.figure.clone().ok();
    let is_beside_hyper = beside_bare_hyper().iter().any(|row| row.name == line.name);
    match (&line.figure, figure_of(BARE_TONIC), figure_of(BARE_H2)) {
        (Ok(figure), Some(tonic), Some(h2)) if is_beside_hyper => {
            format!("{:.2}; {:.2}", figure / tonic, figure / h2)
        }
        _ => String::new(),
    }
}

const fn bare(ceiling: Ceiling) -> Work {
    Work::Serve(Server::Bare(ceiling), Load::USUAL)
}

/// The ceilings beside that on hyper, so that calls per CPU second of all three are in the table.
fn ceilings() -> Vec<Comparison> {
    let beside_bare_hyper = |name: &str, what: &str, ceiling| Comparison {
        name: name.into(),
        what: what.into(),
        figures: vec![(Figure::CallsPerServerCpu, Target::None)],
        pinned: true,
        ours: bare(ceiling),
        beside: bare(Ceiling::Hyper),
    };
    vec![
        beside_bare_hyper(BARE_TONIC, "bare tonic / bare hyper", Ceiling::Tonic),
        beside_bare_hyper(BARE_H2, "bare h2 / bare hyper", Ceiling::H2),
    ]
}

/// The work of the server of a row, and the least of each engine beside bare hyper.
struct Row {
    name: &'static str,
    what: &'static str,
    gate: Gate,
    load: Load,
    hyper: Target,
    lean: Target,
}

impl Row {
    fn comparison(&self, engine: Engine) -> Comparison {
        let target = match engine {
            Engine::Hyper => self.hyper,
            Engine::Lean => self.lean,
        };
        let name = engine.name();
        Comparison {
            name: format!("{}-{name}", self.name),
            what: format!("engine {name}, {} / bare hyper", self.what),
            figures: vec![(Figure::CallsPerServerCpu, target)],
            pinned: true,
            ours: tollgate(self.gate.clone().by(engine), self.load),
            beside: Work::Serve(Server::Bare(Ceiling::Hyper), self.load),
        }
    }
}

/// Each of [`rows_beside_bare_hyper`] with both engines.
fn beside_bare_hyper() -> Vec<Comparison> {
    let both = |row: &Row| [Engine::Hyper, Engine::Lean].map(|engine| row.comparison(engine));
    rows_beside_bare_hyper().iter().flat_map(both).collect()
}

fn rows_beside_bare_hyper() -> [Row; 7] {
    [
        Row {
            name: "memory",
            what: "memory store",
            gate: Gate::memory(TOKEN_BUCKET),
            load: Load::USUAL,
            hyper: Target::AtLeast(0.80),
            lean: Target::AtLeast(2.5),
        },
        Row {
            name: "memory-without-metadata",
            what: "memory store without dynamic metadata",
            gate: Gate::memory(TOKEN_BUCKET).set(WITHOUT_METADATA),
            load: Load::USUAL,
            hyper: Target::AtLeast(0.90),
            lean: Target::None,
        },
        Row {
            name: "redis-token-bucket",
            what: "Redis, exact, token bucket",
            gate: Gate::exact(TOKEN_BUCKET),
            load: Load::USUAL,
            hyper: Target::None,
            lean: Target::AtLeast(1.0),
        },
        Row {
            name: "redis-sliding-window",
            what: "Redis, exact, sliding window",
            gate: Gate::exact(SLIDING_WINDOW),
            load: Load::USUAL,
            hyper: Target::None,
            lean: Target::AtLeast(0.95),
        },
        Row {
            name: "redis-denied",
            what: "Redis, denied hot keys",
            gate: Gate::exact(ONE_AN_HOUR).set(REMEMBERED),
            load: HOT,
            hyper: Target::None,
            lean: Target::AtLeast(2.3),
        },
        Row {
            name: "redis-leased",
            what: "Redis, leased hot key",
            gate: Gate::exact(LEASED),
            load: ONE_KEY,
            hyper: Target::None,
            lean: Target::AtLeast(2.3),
        },
        Row {
            name: "redis-away",
            what: "Redis away, breaker open, decided by shares",
            gate: Gate::memory(TOKEN_BUCKET).set(AWAY),
            load: Load::USUAL,
            hyper: Target::None,
            lean: Target::None,
        },
    ]
}

/// The lean engine / hyper, in what callers see.
fn between_engines() -> Vec<Comparison> {
    let row = |name: &str, what: &str, figure, target, load| {
        let by = |engine| tollgate(Gate::memory(TOKEN_BUCKET).by(engine), load);
        Comparison {
            name: name.into(),
            what: format!("nothing pinned, memory store, {what}, engine lean / hyper"),
            figures: vec![(figure, target)],
            pinned: false,
            ours: by(Engine::Lean),
            beside: by(Engine::Hyper),
        }
    };
    let at = |pace| Load { pace, ..MANY };
    vec![
        row(
            "two-cores-engines",
            "as many calls as are answered",
            Figure::CallsPerSecond,
            Target::AtLeast(1.8),
            MANY,
        ),
        row(
            "open-loop-half-engines",
            "half of the calls/s that each answers",
            Figure::P99,
            Target::AtMost(1.0),
            at(Pace::HalfOfMost),
        ),
        row(
            "open-loop-60k-engines",
            "60 000 calls/s",
            Figure::P99,
            Target::None,
            at(Pace::PerSecond(60_000)),
        ),
    ]
}
