//! `tollgate load`: runs the load generator and prints its report. With `--verify` it also holds
//! the answers against the limits.

use clap::Args;
use serde::Serialize;

use super::exit::{Failure, Outcome};
use super::verify::{self, TermsArgs};
use crate::load::{self, LoadArgs, Report};

/// `tollgate load`.
#[derive(Args, Debug)]
pub(crate) struct LoadCommand {
    /// The load.
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    /// Check that the answers keep --limit or the limits of --policies, as `tollgate verify` does;
    /// exit code 1 if they do not
    #[arg(long)]
    pub(crate) verify: bool,
    /// The promises.
    #[command(flatten)]
    pub(crate) terms: TermsArgs,
}

/// Both reports as one JSON object.
#[derive(Serialize)]
struct Both<'a> {
    #[serde(flatten)]
    load: &'a Report,
    #[serde(skip_serializing_if = "Option::is_none")]
    verify: Option<serde_json::Value>,
}

/// Generates load and prints the report.
pub(crate) fn run(args: &LoadCommand) -> Outcome {
    let LoadCommand { load: load_args, verify, terms: terms_args } = args;
    if !verify && terms_args.is_given() {
        let what = "--limit and --policies are what --verify checks: add --verify";
        return Err(Failure::Line(what.to_owned()));
    }
    let terms = verify.then(|| terms_args.read()).transpose()?;
    let traces = verify.then(|| terms_args.traces());
    let (report, traces) = load::run(load_args, traces).map_err(anyhow::Error::from)?;
    let verified = match terms.zip(traces) {
        Some((terms, traces)) => Some(verify::report(terms_args, &terms, traces)?),
        None => None,
    };
    if load_args.json {
        let verify = verified.as_ref().map(verify::Report::json);
        println!("{}", serde_json::to_string(&Both { load: &report, verify })?);
    } else {
        print!("{report}");
        if let Some(verified) = &verified {
            print!("\n{}", verified.text());
        }
    }
    verified.map_or(Ok(()), |verified| verified.outcome())
}
