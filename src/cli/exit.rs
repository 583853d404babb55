//! Exit codes, and the errors that lead to them.

use std::process::ExitCode;

/// The settings cannot be used: `EX_USAGE` of sysexits.h.
const BAD_SETTINGS: u8 = 64;

/// The reason why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It was not done, or the check found something.
    Failed(String),
    /// As `Failed`; everything to say has been printed.
    Silent,
    /// The settings have faults.
    Settings(String),
}

/// The result of a command.
pub(crate) type Outcome = Result<(), Failure>;

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(format!("{error:#}"))
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::Failed(format!("cannot write JSON: {error}"))
    }
}

/// Prints a failure to standard error and returns the exit code.
pub(crate) fn code(outcome: Outcome) -> ExitCode {
    let Err(failure) = outcome else { return ExitCode::SUCCESS };
    match &failure {
        Failure::Silent => {}
        Failure::Settings(text) => eprintln!("{text}"),
        Failure::Failed(text) => eprintln!("tollgate: {text}"),
    }
    match failure {
        Failure::Failed(_) | Failure::Silent => ExitCode::FAILURE,
        Failure::Settings(_) => ExitCode::from(BAD_SETTINGS),
    }
}
