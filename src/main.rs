//! The binary: parses the command line, runs the command, and maps the outcome to an exit code.

mod cli;
mod load;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use tollgate::app::{self, ReadyFile};
use tollgate::config::{self, Faults, Loaded, Sources};
use tollgate::policy::{self, Options};
use tollgate::telemetry::{logs, panics};

use self::cli::{BAD_SETTINGS, CheckArgs, Cli, Command, ServeArgs, SettingsArgs};
use self::load::LoadArgs;

fn main() -> ExitCode {
    match Cli::parse().into_command() {
        Command::Serve(args) => serve(args),
        Command::Check(args) => check(&args),
        Command::PrintConfig(args) => print_config(args),
        Command::Load(args) => exit_code(load(&args)),
    }
}

fn serve(args: ServeArgs) -> ExitCode {
    let sources = args.settings.sources();
    match config::load(&sources) {
        Ok(loaded) => exit_code(run(loaded, sources, ReadyFile(args.ready_file))),
        Err(faults) => bad_settings(&faults),
    }
}

fn run(loaded: Loaded, sources: Sources, ready_file: ReadyFile) -> anyhow::Result<()> {
    let settings = loaded.settings;
    let logs = logs::init(&settings.log.level, settings.log.format)?;
    panics::install();
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    // Runs admin, HTTP and reloads. Decisions run on one runtime per core.
    let control = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("tollgate-control")
        .enable_all()
        .build()
        .context("cannot start the control runtime")?;
    let reread = move || config::load(&sources).map(|loaded| loaded.settings);
    let outcome = control.block_on(app::run(settings, logs, ready_file, reread));
    // A plain drop would wait for the tasks that the drain has aborted.
    control.shutdown_background();
    Ok(outcome?)
}

fn check(args: &CheckArgs) -> ExitCode {
    let options = Options {
        default_algorithm: args.default_algorithm,
        merge_domains: args.merge_domains,
        ..Options::default()
    };
    let report = policy::check(&args.paths, &options);
    println!("{report}");
    if report.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn print_config(args: SettingsArgs) -> ExitCode {
    match config::load(&args.sources()) {
        Ok(loaded) => {
            for warning in &loaded.warnings {
                eprintln!("warning: {warning}");
            }
            print!("{}", loaded.to_yaml());
            ExitCode::SUCCESS
        }
        Err(faults) => bad_settings(&faults),
    }
}

fn load(args: &LoadArgs) -> anyhow::Result<()> {
    let report = load::run(args)?;
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{report}");
    }
    Ok(())
}

fn bad_settings(faults: &Faults) -> ExitCode {
    eprintln!("{faults}");
    ExitCode::from(BAD_SETTINGS)
}

/// Prints an error with its causes to standard error.
fn exit_code(outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tollgate: {error:#}");
            ExitCode::FAILURE
        }
    }
}
