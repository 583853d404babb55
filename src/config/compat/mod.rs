//! The personality of envoyproxy/ratelimit: its variables as settings, and its defaults.
//!
//! ```text
//! defaults < defaults of the personality < variables < file < environment (TOLLGATE__) < flags
//! ```
//! A variable is mapped to a setting, accepted because nothing is to be done, warned of because it
//! has no effect, or refused because to pass over it would change what is limited. Without the
//! personality no variable is read, and one hint names those that would be.
//!
//! * `adopt`: reads variables. `go`: the forms of their values.
//! * `listeners`, `policies`, `redis`, `telemetry`, `tracing`: which setting each of them is.
//! * `defaults`: the defaults; `inert`: the variables without a setting; `remark`: what is said of
//!   them.
//!
//! Source of names, types and meanings: `src/settings/settings.go` of envoyproxy/ratelimit.

mod adopt;
mod defaults;
mod go;
mod inert;
mod listeners;
mod policies;
mod redis;
mod remark;
mod telemetry;
#[cfg(test)]
mod tests;
mod tracing;

use std::collections::BTreeSet;

use self::adopt::Adopter;
pub use self::remark::Remark;
use super::layer::Layer;
use super::sources::Sources;
use crate::settings::Faults;

/// The layers of the personality, weaker first, and what there is to say of them.
#[derive(Debug, Default)]
pub(super) struct Adopted {
    pub(super) layers: Vec<Layer>,
    pub(super) remarks: Vec<Remark>,
}

/// Reads the variables of the personality. `overridden`: the settings that a stronger source gives.
pub(super) fn adopt(
    sources: &Sources,
    overridden: impl Fn(&str) -> bool,
    faults: &mut Faults,
) -> Adopted {
    let mut adopter = Adopter::new(sources, faults);
    listeners::adopt(&mut adopter);
    policies::adopt(&mut adopter);
    redis::adopt(&mut adopter, &overridden);
    telemetry::adopt(&mut adopter);
    tracing::adopt(&mut adopter);
    inert::adopt(&mut adopter);
    let (variables, remarks) = adopter.finish();
    Adopted { layers: vec![defaults::layer(), variables], remarks }
}

/// Variables that only a service of this kind has.
const CERTAIN: [&str; 5] =
    ["CONFIG_TYPE", "RUNTIME_ROOT", "REDIS_URL", "REDIS_SOCKET_TYPE", "USE_STATSD"];

/// The hint about variables that are set and not read.
pub(super) fn hint(sources: &Sources) -> Option<Remark> {
    let set = sources.environment.iter().filter(|(_, value)| !value.is_empty());
    let set: BTreeSet<&str> = set.filter_map(|(name, _)| name.to_str()).collect();
    let found = CERTAIN.into_iter().filter(|name| set.contains(name)).collect::<Vec<_>>();
    (!found.is_empty()).then(|| {
        Remark::Warning(format!(
            "variables of envoyproxy/ratelimit are set and not read: {}; to stand in for it, start \
             with --compat ratelimit or TOLLGATE__COMPAT=ratelimit",
            found.join(", ")
        ))
    })
}
