//! The kill switch: what limits do, for all domains or for one, by the settings and by operators.
//!
//! A mode that an operator sets goes before the settings, also when it is set for all
//! domains: in an emergency `off` must mean off. Nothing here waits.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::sync::watch;

use crate::settings::{mappings, words};

/// The effect of limits.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Mode {
    /// Limits deny.
    #[default]
    Enforce,
    /// Limits are decided and charged as if every rule were in shadow mode; nothing is denied.
    Shadow,
    /// Nothing is looked at; everything passes.
    Off,
}

words!(Mode { "enforce" => Enforce, "shadow" => Shadow, "off" => Off });

mappings!(Mode, "a mapping from domain to enforce, shadow or off");

/// The modes of one source.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ModeLayer {
    /// The mode of domains without one of their own; none: this source does not say.
    pub global: Option<Mode>,
    /// By domain.
    pub domains: HashMap<Bytes, Mode>,
}

impl ModeLayer {
    fn of(&self, domain: &[u8]) -> Option<Mode> {
        self.domains.get(domain).copied().or(self.global)
    }
}

/// The kill switch of every domain.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Modes {
    /// By operators, at run time: goes before the settings.
    pub operator: ModeLayer,
    /// By the settings.
    pub settings: ModeLayer,
}

/// The source of a mode.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ModeSource {
    /// The settings, or their default.
    Settings,
    /// An operator.
    Operator,
}

/// The mode in force for a domain.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct InForce {
    /// The domain; empty: all domains without a mode of their own.
    pub domain: Bytes,
    /// The mode.
    pub mode: Mode,
    /// Its source.
    pub source: ModeSource,
}

impl Modes {
    /// The mode in force for `domain`.
    pub fn of(&self, domain: &[u8]) -> Mode {
        self.operator.of(domain).or_else(|| self.settings.of(domain)).unwrap_or_default()
    }

    /// The mode of all domains, then that of each domain that a source names, by name.
    pub fn in_force(&self) -> Vec<InForce> {
        let one = |domain: Bytes, operator: Option<Mode>, settings: Option<Mode>| InForce {
            domain,
            mode: operator.or(settings).unwrap_or_default(),
            source: if operator.is_some() { ModeSource::Operator } else { ModeSource::Settings },
        };
        let named: BTreeSet<&Bytes> =
            self.operator.domains.keys().chain(self.settings.domains.keys()).collect();
        let all = one(Bytes::new(), self.operator.global, self.settings.global);
        let own = |domain: &Bytes| {
            one(domain.clone(), self.operator.of(domain), self.settings.of(domain))
        };
        std::iter::once(all).chain(named.into_iter().map(own)).collect()
    }

    /// The mode in force for domains without one of their own.
    pub fn global(&self) -> Mode {
        self.operator.global.or(self.settings.global).unwrap_or_default()
    }
}

/// The modes in force: read without waiting; each layer is replaced without touching the other.
#[derive(Debug, Default)]
pub struct KillSwitch {
    modes: ArcSwap<Modes>,
    changes: watch::Sender<()>,
}

impl KillSwitch {
    /// The modes of `settings`, until an operator says otherwise.
    pub fn new(settings: ModeLayer) -> Self {
        let modes = ArcSwap::from_pointee(Modes { settings, ..Modes::default() });
        Self { modes, ..Self::default() }
    }

    /// The mode in force for `domain`.
    pub fn of(&self, domain: &[u8]) -> Mode {
        self.modes.load().of(domain)
    }

    /// The mode in force for domains without one of their own.
    pub fn global(&self) -> Mode {
        self.modes.load().global()
    }

    /// Both layers.
    pub fn modes(&self) -> Arc<Modes> {
        self.modes.load_full()
    }

    /// A receiver that sees every change of a layer.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Replaces the modes of the settings.
    pub fn set_settings(&self, settings: &ModeLayer) {
        self.modes
            .rcu(|modes| Modes { settings: settings.clone(), operator: modes.operator.clone() });
        self.changes.send_replace(());
    }

    /// Replaces the modes of operators.
    pub fn set_operator(&self, operator: &ModeLayer) {
        self.modes
            .rcu(|modes| Modes { operator: operator.clone(), settings: modes.settings.clone() });
        self.changes.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(global: Option<Mode>, edge: Option<Mode>) -> ModeLayer {
        let domains = edge.map(|mode| (Bytes::from_static(b"edge"), mode)).into_iter().collect();
        ModeLayer { global, domains }
    }

    #[test]
    fn operators_go_before_settings_and_a_domain_before_all() {
        use Mode::{Enforce, Off, Shadow};
        let table = [
            (layer(None, None), layer(Some(Enforce), None), Enforce, Enforce),
            (layer(None, None), layer(Some(Enforce), Some(Shadow)), Shadow, Enforce),
            (layer(Some(Off), None), layer(Some(Enforce), Some(Shadow)), Off, Off),
            (layer(Some(Off), Some(Enforce)), layer(None, Some(Shadow)), Enforce, Off),
            (layer(None, Some(Off)), layer(Some(Shadow), None), Off, Shadow),
        ];
        for (operator, settings, edge, other) in table {
            let switch = KillSwitch::new(settings);
            switch.set_operator(&operator);
            assert_eq!((switch.of(b"edge"), switch.of(b"other")), (edge, other), "{switch:?}");
            assert_eq!(switch.global(), other);
        }
    }

    #[test]
    fn modes_are_listed_with_the_source_that_counts() {
        use ModeSource::{Operator, Settings};
        let listed = |modes: Modes| -> Vec<_> {
            let own = modes.in_force().into_iter();
            own.map(|own| (own.domain.to_vec(), own.mode, own.source)).collect()
        };
        let row = |domain: &[u8], mode, source| (domain.to_vec(), mode, source);
        assert_eq!(listed(Modes::default()), [row(b"", Mode::Enforce, Settings)]);
        let settings = layer(Some(Mode::Shadow), Some(Mode::Enforce));
        let operator = layer(None, None);
        let expected = [row(b"", Mode::Shadow, Settings), row(b"edge", Mode::Enforce, Settings)];
        assert_eq!(listed(Modes { operator, settings: settings.clone() }), expected);
        let operator = layer(Some(Mode::Off), None);
        let expected = [row(b"", Mode::Off, Operator), row(b"edge", Mode::Off, Operator)];
        assert_eq!(listed(Modes { operator, settings: settings.clone() }), expected);
        let operator = layer(None, Some(Mode::Off));
        let expected = [row(b"", Mode::Shadow, Settings), row(b"edge", Mode::Off, Operator)];
        assert_eq!(listed(Modes { operator, settings }), expected);
    }

    #[test]
    fn each_layer_survives_a_change_of_the_other() {
        let switch = KillSwitch::new(layer(Some(Mode::Shadow), None));
        switch.set_operator(&layer(None, Some(Mode::Off)));
        switch.set_settings(&layer(Some(Mode::Enforce), None));
        assert_eq!((switch.of(b"edge"), switch.of(b"x")), (Mode::Off, Mode::Enforce));
        switch.set_operator(&ModeLayer::default());
        assert_eq!(switch.of(b"edge"), Mode::Enforce);
    }
}
