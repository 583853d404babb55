//! The command line: the commands as typed, and one file for each of them.

mod admin;
mod arguments;
mod check;
mod descriptor;
mod exit;
mod explain;
mod load;
mod policies;
mod print_config;
mod serve;
mod settings;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::admin::AdminArgs;
use self::check::CheckArgs;
use self::explain::ExplainArgs;
use self::load::LoadCommand;
use self::serve::ServeArgs;
use self::settings::SettingsArgs;
use self::verify::VerifyArgs;

const ABOUT: &str = "A gRPC rate-limit decision service for Envoy and microservices";

const LONG_ABOUT: &str = "\
A gRPC rate-limit decision service for Envoy and microservices.

Envoy, or any other service, sends descriptors of a request. tollgate matches them against policies (YAML)
and answers OK or OVER_LIMIT. Counters are in memory, or in Redis, shared by all replicas. Without arguments
it serves an example policy with counters in memory.

Listeners:
  gRPC   0.0.0.0:8081    envoy.service.ratelimit.v3.RateLimitService, health, reflection
  admin  127.0.0.1:8082  administration over gRPC, health, reflection
  HTTP   0.0.0.0:8080    /json, /healthcheck, /livez, /readyz, /metrics";

const AFTER: &str = "\
Settings; a later source overrides an earlier one:
  1. defaults
  2. the file of --config (YAML)
  3. the environment: TOLLGATE__SECTION__KEY
  4. --set KEY=VALUE, then --policies and --redis-url
  For example, redis.url  in a file     redis: {url: \"redis://127.0.0.1:6379\"}
                          as a variable TOLLGATE__REDIS__URL=redis://127.0.0.1:6379
                          as a flag     --set redis.url=redis://127.0.0.1:6379
  `tollgate print-config` shows every setting with its meaning and the source of its value.

Exit codes: 0 success, 1 failure (check: faults were found; verify: a promise was broken), 2 invalid command
line (verify: or trace), 64 invalid settings, 69 no answer (admin: a change may have happened).

Next steps:
  tollgate check policies/           report every fault of the policies before they are served
  tollgate explain policies/ DOMAIN KEY=VALUE
                                     show the rule that a descriptor meets
  tollgate admin --help              change limits of single clients and the kill switch
  tollgate load --help               measure a service and check that it keeps its limits
  tollgate print-config              show every setting
  grpcurl -plaintext localhost:8081 list
  curl -i localhost:8080/json \\
    -d '{\"domain\": \"example\", \"descriptors\": [{\"entries\": [{\"key\": \"k\", \"value\": \"v\"}]}]}'";

/// The parsed command line.
#[derive(Debug, Parser)]
#[command(
    name = "tollgate",
    version,
    about = ABOUT,
    long_about = LONG_ABOUT,
    after_long_help = AFTER,
    args_conflicts_with_subcommands = true
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeArgs,
}

impl Cli {
    /// The command; `serve` if none is named.
    fn into_command(self) -> Command {
        self.command.unwrap_or(Command::Serve(self.serve))
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
enum Command {
    /// Serve decisions (the default command)
    #[command(after_long_help = AFTER)]
    Serve(ServeArgs),
    /// Check policies and report every fault with file, line, column and a hint
    Check(CheckArgs),
    /// Show the rule that a descriptor meets, its limits and counters, from policy files alone
    Explain(ExplainArgs),
    /// Change limits of single clients and the kill switch of a running server
    #[command(after_long_help = admin::AFTER)]
    Admin(AdminArgs),
    /// Print every setting as YAML with its meaning and its source; secrets are redacted
    #[command(after_long_help = AFTER)]
    PrintConfig(SettingsArgs),
    /// Measure a rate-limit service under load
    Load(Box<LoadCommand>),
    /// Check recorded calls against the promises of limits
    #[command(after_long_help = verify::AFTER)]
    Verify(VerifyArgs),
}

/// Parses the command line, runs the command and returns its exit code.
pub(crate) fn main() -> ExitCode {
    exit::code(match arguments::parse() {
        Command::Serve(args) => serve::run(args),
        Command::Check(args) => check::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Admin(args) => admin::run(args),
        Command::PrintConfig(args) => print_config::run(args),
        Command::Load(args) => load::run(&args),
        Command::Verify(args) => verify::run(&args),
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::path::PathBuf;

    use clap::CommandFactory;
    use clap::error::ErrorKind;
    use tollgate::config::Secret;
    use tollgate::policy::AlgorithmName;

    use super::*;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Cli::try_parse_from(line.split_whitespace()).map(Cli::into_command)
    }

    #[test]
    fn definition_is_sound() {
        <Cli as CommandFactory>::command().debug_assert();
    }

    #[test]
    fn serve_is_the_default_and_takes_the_same_flags() {
        let flags = "--config a.yaml --policies p --redis-url redis://h --set a=1 --set b=2";
        for line in [format!("tollgate {flags}"), format!("tollgate serve {flags}")] {
            let Command::Serve(serve) = parse(&line).unwrap() else { panic!("{line}") };
            let variable = (OsString::from("A"), OsString::from("b"));
            let sources = serve.settings.sources_with(std::iter::once(variable.clone()));
            assert_eq!(sources.file, Some(PathBuf::from("a.yaml")));
            assert_eq!(sources.policies.as_deref(), Some("p"));
            assert_eq!(sources.redis_url, Some(Secret::new("redis://h")));
            assert_eq!(sources.set, ["a=1", "b=2"].map(Secret::new));
            assert_eq!(sources.environment, [variable]);
        }
        let Command::Serve(serve) = parse("tollgate --ready-file r").unwrap() else { panic!() };
        assert_eq!(serve.ready_file, Some(PathBuf::from("r")));
    }

    #[test]
    fn check_takes_paths_and_the_defaults_of_the_files() {
        let line = "tollgate check a b.yaml --default-algorithm token_bucket --merge-domains";
        let Command::Check(check) = parse(line).unwrap() else { panic!("{line}") };
        assert_eq!(check.paths, [PathBuf::from("a"), PathBuf::from("b.yaml")]);
        assert_eq!(check.policy.options().default_algorithm, AlgorithmName::TokenBucket);
        assert!(check.policy.merge_domains);
        let Command::Check(check) = parse("tollgate check a").unwrap() else { panic!() };
        assert_eq!(check.policy.options().default_algorithm, AlgorithmName::SlidingWindow);
        let line = "tollgate check a --compat ratelimit";
        let Command::Check(check) = parse(line).unwrap() else { panic!("{line}") };
        assert_eq!(check.policy.options().default_algorithm, AlgorithmName::FixedWindow);
        assert!(check.policy.options().lenient);
    }

    #[test]
    fn wrong_lines_are_refused() {
        for line in [
            "tollgate check",
            "tollgate check a --default-algorithm leaky",
            "tollgate print-config --ready-file r",
            "tollgate serve extra",
            "tollgate --listen x",
            "tollgate check a --format xml",
            "tollgate explain policies edge",
            "tollgate explain policies edge user",
            "tollgate admin",
            "tollgate admin limit",
            "tollgate admin block edge 203.0.113.7",
            "tollgate admin mode loud",
            "tollgate admin mode off --token s3cret",
            "tollgate admin limit edge a=b 5/day --for soon",
            "tollgate verify",
            "tollgate verify trace --limit soon",
            "tollgate verify trace --limit 5/s --policies p",
            "tollgate verify trace --limit 5/s --bound 0",
            "tollgate verify --self-test trace",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn help_suffices() {
        let help = parse("tollgate --help").unwrap_err();
        assert_eq!(help.kind(), ErrorKind::DisplayHelp);
        let help = help.to_string();
        for part in [
            "0.0.0.0:8081",
            "127.0.0.1:8082",
            "0.0.0.0:8080",
            "TOLLGATE__REDIS__URL=",
            "print-config",
            "64 invalid settings",
            "grpcurl",
            "--ready-file",
        ] {
            assert!(help.contains(part), "no {part} in\n{help}");
        }
        let version = parse("tollgate --version").unwrap_err().to_string();
        assert_eq!(version.trim(), concat!("tollgate ", env!("CARGO_PKG_VERSION")));
    }
}
