//! Modes that operators set: those of the registry, and those that it does not have yet.

use std::collections::HashMap;

use bytes::Bytes;

use super::Writer;
use crate::control::record::{self, StoredMode};
use crate::control::registry::Record;
use crate::domain::Timestamp;
use crate::limiter::mode::ModeLayer;
use crate::settings::Word as _;
use crate::telemetry::escape::escape;

/// The word for the mode of an operator that was taken back.
const BY_SETTINGS: &str = "by settings";

/// Modes by domain; the empty domain stands for all.
#[derive(Debug, Default)]
pub(super) struct OperatorModes {
    /// As the registry has them.
    pub(super) stored: HashMap<Bytes, StoredMode>,
    /// Set here, and not met in the registry since.
    unsaved: HashMap<Bytes, Unsaved>,
}

/// A mode that was set on this replica.
#[derive(Clone, Copy, Debug)]
struct Unsaved {
    /// None: the settings decide.
    mode: Option<StoredMode>,
    /// The time at which it was set.
    at: Timestamp,
}

impl OperatorModes {
    fn of(&self, domain: &[u8]) -> Option<StoredMode> {
        let stored = || self.stored.get(domain).copied();
        self.unsaved.get(domain).map_or_else(stored, |unsaved| unsaved.mode)
    }

    fn layer(&self) -> ModeLayer {
        let mut layer = ModeLayer::default();
        for domain in self.stored.keys().chain(self.unsaved.keys()) {
            match self.of(domain).map(|stored| stored.mode) {
                Some(mode) if domain.is_empty() => layer.global = Some(mode),
                Some(mode) => _ = layer.domains.insert(domain.clone(), mode),
                None => {}
            }
        }
        layer
    }
}

impl Writer {
    /// Puts a mode in force on this replica, and returns the one before; none: the settings decide.
    /// It gives way to a record of the registry that is at least as new.
    pub(crate) fn set_mode(
        &self,
        domain: &[u8],
        mode: Option<StoredMode>,
        at: Timestamp,
    ) -> Option<StoredMode> {
        let mut modes = self.modes.lock();
        let before = modes.of(domain);
        modes.unsaved.insert(Bytes::copy_from_slice(domain), Unsaved { mode, at });
        self.shared.modes.set_operator(&modes.layer());
        before
    }

    /// The modes that were set here and not met in the registry since.
    pub(crate) fn unsaved_modes(&self) -> Vec<(Bytes, Option<StoredMode>)> {
        let modes = self.modes.lock();
        modes.unsaved.iter().map(|(domain, unsaved)| (domain.clone(), unsaved.mode)).collect()
    }

    /// Returns whether modes have changed.
    pub(super) fn apply_mode(&self, domain: Bytes, record: Option<Record>) -> bool {
        let stored = match record.map(|record| StoredMode::read(&record.value)).transpose() {
            Ok(stored) => stored,
            Err(error) => {
                self.unreadable(&record::mode_key(&domain), &error.to_string());
                return false;
            }
        };
        self.note_mode(&domain, stored.map_or(BY_SETTINGS, |stored| stored.mode.word()));
        let mut modes = self.modes.lock();
        let is_met = |unsaved: &Unsaved| match stored {
            Some(stored) => stored.updated_at >= unsaved.at,
            None => unsaved.mode.is_none(),
        };
        if modes.unsaved.get(&domain).is_some_and(is_met) {
            modes.unsaved.remove(&domain);
        }
        match stored {
            Some(stored) => _ = modes.stored.insert(domain, stored),
            None => _ = modes.stored.remove(&domain),
        }
        true
    }

    fn note_mode(&self, domain: &[u8], mode: &'static str) {
        let domain = if domain.is_empty() { "all".to_owned() } else { escape(domain).to_string() };
        self.batch.lock().modes.insert(domain, mode);
    }

    pub(super) fn publish_modes(&self) {
        let modes = self.modes.lock();
        // Under the lock, so that of two changes the later one is in force.
        self.shared.modes.set_operator(&modes.layer());
    }
}
