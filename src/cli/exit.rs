//! Exit codes, and the errors that lead to them.

use std::process::ExitCode;

/// The settings cannot be used: `EX_USAGE` of sysexits.h.
const BAD_SETTINGS: u8 = 64;

/// The command line is wrong; clap ends with this code too.
const BAD_LINE: u8 = 2;

/// The server did not answer: `EX_UNAVAILABLE` of sysexits.h.
const UNAVAILABLE: u8 = 69;

/// The reason why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It was not done, or the check found something.
    Failed(String),
    /// As `Failed`; everything to say has been printed.
    Silent,
    /// The arguments do not fit together.
    Line(String),
    /// The settings have faults.
    Settings(String),
    /// The server did not answer: whether it was done is unknown.
    Unavailable(String),
}

/// The result of a command.
pub(crate) type Outcome = Result<(), Failure>;

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(format!("{error:#}"))
    }
}

/// Standard output is gone.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(format!("cannot write the output: {error}"))
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
        Failure::Failed(text) | Failure::Line(text) | Failure::Unavailable(text) => {
            eprintln!("tollgate: {text}");
        }
    }
    match failure {
        Failure::Failed(_) | Failure::Silent => ExitCode::FAILURE,
        Failure::Line(_) => ExitCode::from(BAD_LINE),
        Failure::Settings(_) => ExitCode::from(BAD_SETTINGS),
        Failure::Unavailable(_) => ExitCode::from(UNAVAILABLE),
    }
}
