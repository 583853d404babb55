//! `tollgate verify`: holds recorded calls against the promises of limits.

mod impostors;
mod judge;
mod read;
mod report;
mod self_test;
mod terms;

use std::path::PathBuf;

use clap::Args;
use tollgate::verify::Traces;

use self::judge::judge;
pub(super) use self::report::Report;
pub(super) use self::terms::Terms;
pub(crate) use self::terms::TermsArgs;
use super::exit::{Failure, Outcome};

pub(super) const AFTER: &str = "\
A trace is text, one call a line; `tollgate load --record FILE` writes it:
  key,sent_us,received_us,hits,admitted[,degraded[,settled_hits,settled_sent_us,settled_received_us]]
Times are microseconds since 1970 on the caller's clock, admitted and degraded are 1 or 0, and negative
hits were given back. A key is a counter. With --policies it is a descriptor: DOMAIN|KEY=VALUE|KEY=VALUE.

A hit counts in an interval if its call was sent and answered there: then it was decided there. An
interval with more such hits than the limit allows convicts.

Exit codes: 0 every promise held, 1 one was broken, 2 a trace or the command line cannot be read.";

/// `tollgate verify`.
#[derive(Args, Debug)]
pub(crate) struct VerifyArgs {
    /// Files of calls; those of several callers are merged; - reads standard input
    #[arg(value_name = "TRACE", required_unless_present = "self_test")]
    pub(crate) traces: Vec<PathBuf>,
    /// The promises.
    #[command(flatten)]
    pub(crate) terms: TermsArgs,
    /// Print the report as one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Test the checker itself: it has to convict wrong limiters and to acquit right ones
    #[arg(long, exclusive = true)]
    pub(crate) self_test: bool,
}

/// Prints the report of the traces.
pub(crate) fn run(args: &VerifyArgs) -> Outcome {
    if args.self_test {
        return self_test::run();
    }
    let terms = args.terms.read()?;
    let traces = read::read(&args.traces, args.terms.traces(), &terms)?;
    let report = report(&args.terms, &terms, traces)?;
    if args.json {
        println!("{}", report.json());
    } else {
        print!("{}", report.text());
    }
    report.outcome()
}

/// The report of these traces.
///
/// # Errors
/// A key that the policies do not know.
pub(super) fn report(args: &TermsArgs, terms: &Terms, traces: Traces) -> Result<Report, Failure> {
    let verdict = judge(terms, traces).map_err(Failure::Line)?;
    Ok(Report { verdict, shown: args.show })
}
