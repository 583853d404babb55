//! Loads settings: defaults < file < environment < flags, then the rules between settings.
//!
//! The process environment is an argument, so that a load depends on nothing else but the files it
//! names.

use std::collections::BTreeMap;

use super::compat::{self, Adopted, Remark};
use super::layer::Layer;
use super::service::Compat;
use super::sources::Sources;
use super::{Settings, print};
use crate::settings::{Faults, Reader, Resolved};

/// Valid settings, and where each came from.
#[derive(Debug)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// Remarks for the log of the start, such as variables that are set but not read.
    pub remarks: Vec<Remark>,
    resolved: BTreeMap<String, Resolved>,
}

impl Loaded {
    /// Every setting as YAML, with its meaning and origin as comments. Secrets are `***`, which
    /// does not load; the rest can be loaded again.
    pub fn to_yaml(&self) -> String {
        print::yaml(&self.resolved)
    }
}

/// Loads and checks the settings.
///
/// # Errors
/// Every fault of every source.
pub fn load(sources: &Sources) -> Result<Loaded, Faults> {
    let mut faults = Faults::default();
    let own = [
        Layer::file(sources, &mut faults),
        Layer::environment(sources, &mut faults),
        Layer::flags(sources, &mut faults),
    ];
    let Adopted { layers, remarks } = adopted(sources, &own, &mut faults);
    let layers = [Layer::defaults()].into_iter().chain(layers).chain(own);
    let mut builder = config::Config::builder();
    for layer in layers {
        builder = builder.add_source(layer);
    }
    let merged = builder.build().and_then(|merged| merged.cache.into_table());
    let merged = match merged {
        Ok(merged) => merged,
        Err(error) => {
            faults.add("settings", "", error.to_string());
            return Err(faults);
        }
    };
    let mut reader = Reader::new(merged, faults);
    let settings = Settings::read(&mut reader).map(|settings| resolve(settings, &mut reader));
    match settings {
        Some(settings) if reader.faults.0.is_empty() => {
            Ok(Loaded { settings, remarks, resolved: reader.resolved })
        }
        _ => Err(reader.faults),
    }
}

/// The layers of the personality that `own` names or, without one, the name of the program.
fn adopted(sources: &Sources, own: &[Layer], faults: &mut Faults) -> Adopted {
    const SETTING: &str = "compat";
    let given = own.iter().rev().find_map(|layer| layer.get(SETTING));
    let word = given.as_ref().map(|(word, _)| word.as_str());
    // A word that is none is a fault when the setting is read.
    let compat = word.map_or(sources.program, |word| word.parse().unwrap_or_default());
    if compat == Compat::None {
        // Who says so needs no hint.
        let hint = compat::hint(sources).filter(|_| word.is_none());
        let remarks = hint.into_iter().collect();
        return Adopted { layers: Vec::new(), remarks };
    }
    let overridden = |setting: &str| own.iter().any(|layer| layer.get(setting).is_some());
    let mut adopted = compat::adopt(sources, overridden, faults);
    if word.is_none() {
        let mut named = Layer::default();
        named.put(SETTING, "the name of the program", "ratelimit");
        adopted.layers.push(named);
    }
    adopted
}

/// Applies the rules that no type expresses: those of each section, then those between sections.
fn resolve(mut settings: Settings, reader: &mut Reader) -> Settings {
    settings.general.resolve(reader);
    settings.grpc.resolve(reader);
    settings.admin.resolve(reader);
    settings.http.resolve(reader);
    settings.xds.resolve(reader);
    settings.redis.resolve(reader);
    settings.failover.resolve(reader);
    settings.response.resolve(reader);
    settings.metrics.resolve(reader);
    settings.statsd.resolve(reader);
    settings.events.webhook.resolve(reader);
    settings.traces.resolve(reader);
    settings.log.resolve(reader);
    listeners(&settings, reader);
    settings
}

/// No two listeners have the same address.
fn listeners(settings: &Settings, reader: &mut Reader) {
    let mut all = vec![
        ("grpc.listen", settings.grpc.listen),
        ("admin.listen", settings.admin.listen),
        ("http.listen", settings.http.listen),
    ];
    let metrics = settings.http.metrics_listen;
    all.extend(metrics.map(|address| ("http.metrics_listen", address)));
    let status = settings.http.status_listen.filter(|_| settings.http.status);
    all.extend(status.map(|address| ("http.status_listen", address)));
    all.extend(settings.debug.listen.map(|address| ("debug.listen", address)));
    for (index, (key, address)) in all.iter().enumerate() {
        for (other_key, other) in all.iter().take(index) {
            let same_ip = address.ip() == other.ip()
                || address.ip().is_unspecified()
                || other.ip().is_unspecified();
            let same = address.port() != 0 && address.port() == other.port() && same_ip;
            if same && reader.is_sound(key) && reader.is_sound(other_key) {
                reader.refuse(key, format!("{address} is taken by {other_key} ({other})"));
            }
        }
    }
}
