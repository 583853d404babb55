//! The flags that say where settings come from.

use std::convert::Infallible;
use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use tollgate::config::{Compat, Secret, Sources};

use super::arguments;

/// The sources of the settings.
#[derive(Args, Debug)]
pub(crate) struct SettingsArgs {
    /// Stand in for this service: ratelimit = envoyproxy/ratelimit. Its variables are read
    #[arg(long, value_name = "SERVICE")]
    pub(crate) compat: Option<Compat>,
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

    pub(super) fn sources_with(
        self,
        environment: impl Iterator<Item = (OsString, OsString)>,
    ) -> Sources {
        Sources {
            file: self.config,
            environment: environment.collect(),
            set: self.set,
            compat: self.compat,
            program: arguments::program(),
            policies: self.policies,
            redis_url: self.redis_url,
        }
    }
}
