//! `tollgate print-config`: every setting, with its meaning and origin.

use tollgate::config::{self, Remark};

use super::exit::{Failure, Outcome};
use super::settings::SettingsArgs;

/// Prints the settings.
pub(crate) fn run(args: SettingsArgs) -> Outcome {
    let loaded =
        config::load(&args.sources()).map_err(|faults| Failure::Settings(faults.to_string()))?;
    for remark in &loaded.remarks {
        match remark {
            Remark::Warning(text) => eprintln!("warning: {text}"),
            Remark::Info(text) | Remark::Detail(text) => eprintln!("{text}"),
        }
    }
    print!("{}", loaded.to_yaml());
    Ok(())
}
