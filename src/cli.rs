//! The command line: what was typed, as types. Runs nothing and reads no settings.

use std::convert::Infallible;
use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use tollgate::config::{Secret, Sources};
use tollgate::policy::AlgorithmName;

use crate::load::LoadArgs;

/// The exit code for settings that cannot be used: `EX_USAGE` of sysexits.h.
pub(crate) const BAD_SETTINGS: u8 = 64;

const ABOUT: &str = "A gRPC rate-limit decision service for Envoy and microservices";

const LONG_ABOUT: &str = "\
A gRPC rate-limit decision service for Envoy and microservices.

Envoy, or any service, asks whether a request may pass; tollgate answers from policies (YAML) with counters
in memory or, shared by every replica, in Redis. Without arguments it serves an example policy from memory.

Listeners:
  gRPC   0.0.0.0:8081    envoy.service.ratelimit.v3.RateLimitService, health, reflection
  admin  127.0.0.1:8082  administration over gRPC, health, reflection
  HTTP   0.0.0.0:8080    /json, /healthcheck, /livez, /readyz, /metrics";

const AFTER: &str = "\
Settings, a later source before an earlier one:
  1. defaults
  2. the file of --config (YAML)
  3. the environment: TOLLGATE__SECTION__KEY
  4. --set KEY=VALUE, then --policies and --redis-url
  Of redis.url that is, in a file       redis: {url: \"redis://127.0.0.1:6379\"}
                        as a variable   TOLLGATE__REDIS__URL=redis://127.0.0.1:6379
                        as a flag       --set redis.url=redis://127.0.0.1:6379
  `tollgate print-config` shows every setting, what it means and where its value came from.

Exit codes: 0 done, 1 failed (check: faults were found), 2 the command line is wrong, 64 the settings are wrong.

Where to look next:
  tollgate check policies/           every fault of the policies, before they are served
  tollgate print-config              every setting
  grpcurl -plaintext localhost:8081 list
  curl -i localhost:8080/json \\
    -d '{\"domain\": \"example\", \"descriptors\": [{\"entries\": [{\"key\": \"k\", \"value\": \"v\"}]}]}'";

/// What was typed.
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
    /// The command; `serve` when none is named.
    pub(crate) fn into_command(self) -> Command {
        self.command.unwrap_or(Command::Serve(self.serve))
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve decisions (the default command)
    #[command(after_long_help = AFTER)]
    Serve(ServeArgs),
    /// Check policies and report every fault with file, line, column and a hint
    Check(CheckArgs),
    /// Print every setting as YAML, with its meaning and where it came from; secrets are not shown
    #[command(after_long_help = AFTER)]
    PrintConfig(SettingsArgs),
    /// Ask a rate-limit service as fast as it answers, or at a given rate, and measure it
    Load(LoadArgs),
}

/// `tollgate serve`.
#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    /// Where settings come from.
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
    /// Written once ready, as JSON: {"grpc": "IP:PORT", "admin": "IP:PORT", "http": "IP:PORT"}
    #[arg(long, value_name = "FILE")]
    pub(crate) ready_file: Option<PathBuf>,
}

/// Where settings come from.
#[derive(Args, Debug)]
pub(crate) struct SettingsArgs {
    /// Settings file (YAML)
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Policy file, or directory of policy files
    #[arg(long, value_name = "PATH")]
    pub(crate) policies: Option<String>,
    /// Count in this Redis
    ///
    /// Other users of the machine can see a command line: a password belongs into `TOLLGATE__REDIS__URL` or
    /// the file that `redis.url_file` names.
    #[arg(long, value_name = "URL", value_parser = secret)]
    pub(crate) redis_url: Option<Secret>,
    /// Set one setting, such as grpc.cores=4; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = secret)]
    pub(crate) set: Vec<Secret>,
}

#[expect(clippy::unnecessary_wraps, reason = "the form that clap asks of a parser")]
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
    /// Policy files, or directories of them; all paths together are one policy set
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// Algorithm of limits that name none: `sliding_window`, `token_bucket` or `fixed_window`
    #[arg(long, value_name = "ALGORITHM", default_value = "sliding_window")]
    pub(crate) default_algorithm: AlgorithmName,
    /// Let several files add to the same domain
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
    fn check_takes_paths_and_what_the_files_leave_open() {
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
            "64 the settings are wrong",
            "grpcurl",
            "--ready-file",
        ] {
            assert!(help.contains(part), "no {part} in\n{help}");
        }
        let version = parse("tollgate --version").unwrap_err().to_string();
        assert_eq!(version.trim(), concat!("tollgate ", env!("CARGO_PKG_VERSION")));
    }
}
