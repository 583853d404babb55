//! Loads settings: defaults < file < environment < flags, then the rules between settings.
//!
//! The process environment is an argument, so that a load depends on nothing else but the files it
//! names.

use std::collections::BTreeMap;

use super::layer::Layer;
use super::sources::Sources;
use super::{Settings, print, reference};
use crate::settings::{Faults, Reader, Resolved};

/// Valid settings, and where each came from.
#[derive(Debug)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// Warnings for the operator, such as variables that are set but not read.
    pub warnings: Vec<String>,
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
    let merged = config::Config::builder()
        .add_source(Layer::defaults())
        .add_source(Layer::file(sources, &mut faults))
        .add_source(Layer::environment(sources, &mut faults))
        .add_source(Layer::flags(sources, &mut faults))
        .build()
        .and_then(|merged| merged.cache.into_table());
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
            let warnings = reference::warning(sources, &reader).into_iter().collect();
            Ok(Loaded { settings, warnings, resolved: reader.resolved })
        }
        _ => Err(reader.faults),
    }
}

/// Applies the rules that no type expresses: those of each section, then those between sections.
fn resolve(mut settings: Settings, reader: &mut Reader) -> Settings {
    settings.general.resolve(reader);
    settings.grpc.resolve(reader);
    settings.admin.resolve(reader);
    settings.http.resolve(reader);
    settings.redis.resolve(reader);
    settings.failover.resolve(reader);
    settings.response.resolve(reader);
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
