//! `tollgate print-config`: every setting, with its meaning and origin.

use tollgate::config;

use super::exit::{Failure, Outcome};
use super::settings::SettingsArgs;

/// Prints the settings.
pub(crate) fn run(args: SettingsArgs) -> Outcome {
    let loaded =
        config::load(&args.sources()).map_err(|faults| Failure::Settings(faults.to_string()))?;
    for warning in &loaded.warnings {
        eprintln!("warning: {warning}");
    }
    print!("{}", loaded.to_yaml());
    Ok(())
}
