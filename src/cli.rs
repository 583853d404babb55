//! The command line as types. Parses only; does not run commands or load settings.

use std::convert::Infallible;
use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use tollgate::config::{Secret, Sources};
use tollgate::policy::AlgorithmName;

use crate::load::LoadArgs;

/// The exit code for invalid settings: `EX_USAGE` of sysexits.h.
pub(crate) const BAD_SETTINGS: u8 = 64;

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

Exit codes: 0 success, 1 failure (check: faults were found), 2 invalid command line, 64 invalid settings.

Next steps:
  tollgate check policies/           report every fault of the policies before they are served
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
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeArgs,
}

impl Cli {
    /// The command; `serve` if none is named.
    pub(crate) fn into_command(self) -> Command {
        self.command.unwrap_or(Command::Serve(self.serve))
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve decisions (the default command)
    #[command(after_long_help = AFTER)]
    Serve(ServeArgs),
    /// Check policies and report every fault with file, line, column and a hint
    Check(CheckArgs),
    /// Print every setting as YAML with its meaning and its source; secrets are redacted
    #[command(after_long_help = AFTER)]
    PrintConfig(SettingsArgs),
    /// Measure a rate-limit service under load
    Load(LoadArgs),
}

/// `tollgate serve`.
#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    /// The sources of settings.
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
    /// File to write once ready, as JSON: {"grpc": "IP:PORT", "admin": "IP:PORT", "http":
    /// "IP:PORT"}
    #[arg(long, value_name = "FILE")]
    pub(crate) ready_file: Option<PathBuf>,
}

/// The sources of settings.
#[derive(Args, Debug)]
pub(crate) struct SettingsArgs {
    /// Settings file (YAML)
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Policy file, or directory of policy files
    #[arg(long, value_name = "PATH")]
    pub(crate) policies: Option<String>,
    /// Redis that holds the counters
    ///
    /// Other users of the machine can read the command line. Put a password into
    /// `TOLLGATE__REDIS__URL` or into the file that `redis.url_file` names.
    #[arg(long, value_name = "URL", value_parser = secret)]
    pub(crate) redis_url: Option<Secret>,
    /// Set one setting, such as grpc.cores=4; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = secret)]
    pub(crate) set: Vec<Secret>,
}

#[expect(clippy::unnecessary_wraps, reason = "the signature of a clap parser")]
fn secret(text: &str) -> Result<Secret, Infallible> {
    Ok(Secret::new(text))
}

impl SettingsArgs {
    /// The sources to load, with the environment of this process.
    pub(crate) fn sources(self) -> Sources {
        self.sources_with(env::vars_os())
    }

    fn sources_with(self, environment: impl Iterator<Item = (OsString, OsString)>) -> Sources {
        Sources {
            file: self.config,
            environment: environment.collect(),
            set: self.set,
            policies: self.policies,
            redis_url: self.redis_url,
        }
    }
}

/// `tollgate check`.
#[derive(Args, Debug)]
pub(crate) struct CheckArgs {
    /// Policy files or directories; all paths together are one policy set
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// Algorithm of limits that do not name one: `sliding_window`, `token_bucket` or `fixed_window`
    #[arg(long, value_name = "ALGORITHM", default_value = "sliding_window")]
    pub(crate) default_algorithm: AlgorithmName,
    /// Merge files that define the same domain
    #[arg(long)]
    pub(crate) merge_domains: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

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
        assert_eq!(check.default_algorithm, AlgorithmName::TokenBucket);
        assert!(check.merge_domains);
        let Command::Check(check) = parse("tollgate check a").unwrap() else { panic!() };
        assert_eq!(check.default_algorithm, AlgorithmName::SlidingWindow);
    }

    #[test]
    fn wrong_lines_are_refused() {
        for line in [
            "tollgate check",
            "tollgate check a --default-algorithm leaky",
            "tollgate print-config --ready-file r",
            "tollgate serve extra",
            "tollgate --listen x",
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
