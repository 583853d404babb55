//! `tollgate load`: runs the load generator and prints its report.

use super::exit::Outcome;
use crate::load::{self, LoadArgs};

/// Generates load and prints the report.
pub(crate) fn run(args: &LoadArgs) -> Outcome {
    let report = load::run(args).map_err(anyhow::Error::from)?;
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{report}");
    }
    Ok(())
}
