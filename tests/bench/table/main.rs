//! `make bench`: what tollgate costs beside a server that decides nothing, as a Markdown table of
//! ratios.
//!
//! Everything that is measured is started here, in release builds: redis-server, the example
//! `bare`, `tollgate`, and `tollgate load`. The two sides of a ratio take turns within one run,
//! because the speed of a shared machine varies. A row shows the median of the ratios over the
//! rounds. Progress goes to standard error, the table to standard output.
//!
//! Costs of single steps: `make bench-micro`. Nothing here tests correctness.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a benchmark ends by panicking where something is not as it has to be"
)]
#![allow(
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    reason = "nothing is public in a benchmark"
)]
#![allow(clippy::disallowed_types, reason = "the support of the tests has its own rules")]

mod ablate;
mod compare;
mod connections;
mod drive;
mod engines;
mod instructions;
mod load;
mod machine;
mod memory;
mod rows;
mod sample;
mod servers;
mod store;
mod table;

#[path = "../../../src/load/cpu.rs"]
mod cpu;
#[path = "../../support/mod.rs"]
mod support;

use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser, Subcommand};
use mimalloc::MiMalloc;

use self::compare::Rounds;
use self::table::Line;

/// That of the program, whose instructions are counted.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Measure tollgate beside servers that decide nothing and print a table of ratios
#[derive(Debug, Parser)]
#[command(name = "table", bin_name = "table")]
struct Args {
    /// How long each measurement takes, after a tenth of that to warm up
    #[arg(long, value_name = "N", default_value = "5", value_parser = seconds)]
    seconds: Duration,
    /// How often both sides of a ratio are measured; the median counts
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: usize,
    /// Only the rows whose name contains this; may be repeated
    #[arg(long, value_name = "ROW")]
    only: Vec<String>,
    /// Switch each lever off in turn instead, and print what it gains
    #[arg(long)]
    ablate: bool,
    /// Cargo says this to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
    #[command(subcommand)]
    child: Option<Child>,
}

/// What this program starts of itself, so that it can be pinned or counted alone.
#[derive(Debug, Subcommand)]
enum Child {
    /// Drive Redis and print a sample
    #[command(hide = true)]
    Drive(drive::DriveArgs),
    /// Make a number of decisions in memory
    #[command(hide = true)]
    Decide(instructions::DecideArgs),
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text.parse().map_err(|error| format!("{error}"))?;
    let duration = Duration::try_from_secs_f64(number).map_err(|error| error.to_string())?;
    // CPU time is told in hundredths of a second.
    if duration < Duration::from_millis(500) { Err("at least 0.5".into()) } else { Ok(duration) }
}

fn main() {
    let args = Args::parse();
    match &args.child {
        Some(Child::Drive(drive)) => drive::run(drive),
        Some(Child::Decide(decide)) => instructions::decide(decide),
        None => measure(&args),
    }
}

fn measure(args: &Args) {
    let asked = |name: &str| {
        args.only.is_empty() || args.only.iter().any(|only| name.contains(only.as_str()))
    };
    let mut comparisons = if args.ablate { ablate::comparisons() } else { rows::comparisons() };
    comparisons.retain(|row| asked(&row.name));
    if !args.ablate {
        comparisons.splice(..0, engines::comparisons(asked));
    }
    let wanted = |name: &str| !args.ablate && asked(name);
    let others = [memory::NAMES.as_slice(), connections::NAMES.as_slice(), &[instructions::NAME]];
    let nothing = comparisons.is_empty() && !others.concat().into_iter().any(wanted);
    let missing = if nothing { Some("no row has such a name") } else { machine::missing() };
    if let Some(missing) = missing {
        Args::command().error(ErrorKind::InvalidValue, missing).exit();
    }
    let load = machine::load_average();
    let rounds = Rounds { count: args.rounds.max(1), duration: args.seconds };
    let mut lines: Vec<Line> = Vec::new();
    for comparison in &comparisons {
        lines.extend(comparison.run(&rounds));
    }
    lines.extend(memory::lines(wanted));
    lines.extend(connections::lines(wanted));
    lines.extend(instructions::lines(wanted));
    println!("{}", machine::heading(&load));
    table::print(&lines, |line| engines::beside_other_ceilings(line, &lines));
}
