//! `tollgate serve`: loads the settings and runs the service until it is stopped.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use tollgate::app::{self, ReadyFile};
use tollgate::config::{self, Loaded, Remark, Sources};
use tollgate::telemetry::{logs, panics};

use super::exit::{Failure, Outcome};
use super::settings::SettingsArgs;

/// `tollgate serve`.
#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    /// The sources of the settings.
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
    /// File to write once ready, as JSON: {"grpc": "IP:PORT", "admin": "IP:PORT", "http":
    /// "IP:PORT"}
    #[arg(long, value_name = "FILE")]
    pub(crate) ready_file: Option<PathBuf>,
    /// Arguments that are passed over.
    #[arg(skip)]
    pub(crate) ignored: Vec<String>,
}

/// Serves until it is stopped.
pub(crate) fn run(args: ServeArgs) -> Outcome {
    let sources = args.settings.sources();
    let loaded = config::load(&sources).map_err(|faults| Failure::Settings(faults.to_string()))?;
    Ok(serve(loaded, sources, ReadyFile(args.ready_file), &args.ignored)?)
}

fn serve(
    loaded: Loaded,
    sources: Sources,
    ready_file: ReadyFile,
    ignored: &[String],
) -> anyhow::Result<()> {
    let settings = loaded.settings;
    let logs = logs::init(&settings.log)?;
    panics::install();
    for remark in &loaded.remarks {
        match remark {
            Remark::Warning(text) => tracing::warn!("{text}"),
            Remark::Info(text) => tracing::info!("{text}"),
            Remark::Detail(text) => tracing::debug!("{text}"),
        }
    }
    if !ignored.is_empty() {
        tracing::warn!("arguments that are not known have no effect: {}", ignored.join(" "));
    }
    // Runs admin, HTTP and reloads. Decisions run on one runtime per core.
    let control = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("tollgate-control")
        .enable_all()
        .build()
        .context("cannot start the control runtime")?;
    let reread = move || config::load(&sources).map(|loaded| loaded.settings);
    let outcome = control.block_on(app::run(settings, logs.clone(), ready_file, reread));
    // A plain drop would wait for the tasks that the drain has aborted.
    control.shutdown_background();
    logs.flush();
    Ok(outcome?)
}
