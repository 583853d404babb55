//! The command line of this process: its program, and arguments that are passed over.
//!
//! A service that tollgate stands in for reads no arguments, so deployments may pass some that mean
//! nothing to tollgate.

use std::env;
use std::ffi::OsString;
use std::path::Path;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory as _, FromArgMatches as _, Parser as _};
use tollgate::config::Compat;

use super::{Cli, Command};

/// The variable of the setting `compat`.
const VARIABLE: &str = "TOLLGATE__COMPAT";

/// Parses the command line of this process, or ends it with what is wrong.
pub(super) fn parse() -> Command {
    let arguments: Vec<OsString> = env::args_os().collect();
    let variable = env::var(VARIABLE).ok();
    if !stands_in(&arguments, variable.as_deref()) {
        return Cli::parse().into_command();
    }
    let (command, ignored) = lenient(arguments).unwrap_or_else(|error| error.exit());
    match command {
        Command::Serve(serve) => Command::Serve(super::serve::ServeArgs { ignored, ..serve }),
        command => command,
    }
}

/// The service that this program is named after.
pub(super) fn program() -> Compat {
    env::args_os().next().map_or(Compat::None, |name| named(&name))
}

fn named(program: &OsString) -> Compat {
    let name = Path::new(program).file_name().and_then(|name| name.to_str());
    if name == Some("ratelimit") { Compat::Ratelimit } else { Compat::None }
}

/// True if tollgate stands in for another service, as far as it is known before the settings are
/// read.
fn stands_in(arguments: &[OsString], variable: Option<&str>) -> bool {
    let flag = arguments.iter().any(|argument| argument.to_string_lossy().starts_with("--compat"));
    let ratelimit = |word: &str| word.parse() == Ok(Compat::Ratelimit);
    flag || variable.map_or(arguments.first().map(named) == Some(Compat::Ratelimit), ratelimit)
}

/// The command, and the arguments that no command has.
fn lenient(mut arguments: Vec<OsString>) -> Result<(Command, Vec<String>), clap::Error> {
    let mut ignored = Vec::new();
    loop {
        let parsed = Cli::command().try_get_matches_from(&arguments);
        let parsed = parsed.and_then(|matches| Cli::from_arg_matches(&matches));
        let error = match parsed {
            Ok(cli) => return Ok((cli.into_command(), ignored)),
            Err(error) => error,
        };
        let place = unknown(&error).and_then(|name| {
            let mut rest = arguments.iter().skip(1);
            rest.position(|argument| argument.to_string_lossy().starts_with(&name))
        });
        let Some(place) = place else { return Err(error) };
        ignored.push(arguments.remove(place + 1).to_string_lossy().into_owned());
    }
}

/// The beginning of the argument that no command has.
fn unknown(error: &clap::Error) -> Option<String> {
    let kind = match error.kind() {
        ErrorKind::UnknownArgument => ContextKind::InvalidArg,
        // The second one: beside a flag, a word that would be a command.
        ErrorKind::InvalidSubcommand | ErrorKind::ArgumentConflict => {
            ContextKind::InvalidSubcommand
        }
        _ => return None,
    };
    match error.get(kind)? {
        ContextValue::String(name) => Some(name.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn program_flag_and_variable_name_the_service() {
        assert!(stands_in(&words("/bin/ratelimit --x=1"), None));
        assert!(!stands_in(&words("/bin/ratelimit"), Some("none")));
        assert!(stands_in(&words("tollgate --compat=ratelimit"), None));
        assert!(stands_in(&words("tollgate"), Some("ratelimit")));
        assert!(!stands_in(&words("/usr/bin/tollgate"), None));
        assert!(!stands_in(&words("/opt/ratelimit/tollgate"), None));
    }

    #[test]
    fn unknown_arguments_are_passed_over_and_named() {
        let line = "ratelimit --quotaRateLimitServiceAddr=x:1 -v --policies p extra";
        let (command, ignored) = lenient(words(line)).unwrap();
        let Command::Serve(serve) = command else { panic!("{line}") };
        assert_eq!(serve.settings.policies.as_deref(), Some("p"));
        assert_eq!(ignored, ["--quotaRateLimitServiceAddr=x:1", "-v", "extra"]);
        assert!(lenient(words("ratelimit --policies")).is_err(), "a known one without its value");
    }
}
