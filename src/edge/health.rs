//! The readiness of this instance: it should get traffic, or a reason why not.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::settings::section;

section! {
    /// Health, over gRPC and at `/healthcheck` and `/readyz`.
    pub struct HealthSettings in "health" {
        /// true = not healthy while a connection to Redis is down.
        require_store: bool = "false",
        /// true = not healthy while no domain has a policy.
        require_policies: bool = "false",
    }
}

/// The readiness of an instance for traffic.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(u8)]
pub enum Readiness {
    /// Not yet.
    #[default]
    Starting,
    /// It should.
    Ready,
    /// There was never a policy: those at the start have faults, or the control plane sent none.
    NeverConfigured,
    /// No domain has a policy, and the settings require one.
    NoPolicies,
    /// A connection to the store is down, and the settings require it.
    NoStore,
    /// Not any more.
    Draining,
}

impl Readiness {
    const ALL: [Self; 6] = [
        Self::Starting,
        Self::Ready,
        Self::NeverConfigured,
        Self::NoPolicies,
        Self::NoStore,
        Self::Draining,
    ];

    /// The text that health shows.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "OK",
            Self::NeverConfigured => "no policies yet; the log has the reason",
            Self::NoPolicies => "no domain has a policy",
            Self::NoStore => "the store is away",
            Self::Draining => "draining",
        }
    }
}

/// The readiness that listeners read.
#[derive(Debug, Default)]
pub struct SharedReadiness(AtomicU8);

impl SharedReadiness {
    /// The readiness now.
    pub fn get(&self) -> Readiness {
        let number = usize::from(self.0.load(Ordering::Relaxed));
        Readiness::ALL.get(number).copied().unwrap_or_default()
    }

    /// Replaces it.
    pub fn set(&self, readiness: Readiness) {
        self.0.store(readiness as u8, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_readiness_is_read_as_it_was_set() {
        let shared = SharedReadiness::default();
        assert_eq!(shared.get(), Readiness::Starting);
        for readiness in Readiness::ALL {
            shared.set(readiness);
            assert_eq!(shared.get(), readiness);
        }
    }
}
