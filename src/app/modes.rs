//! Domains whose limits are not enforced, made visible: in a metric, and in a warning at the start,
//! with every change and every hour.

use std::time::Duration;

use tokio::time::Instant;

use crate::limiter::Shared;
use crate::limiter::mode::{InForce, KillSwitch, Mode};
use crate::settings::Word as _;
use crate::telemetry::escape::escape;
use crate::telemetry::metrics::Metrics;

/// The interval of the warning while limits are not enforced.
const REMINDER: Duration = Duration::from_hours(1);

/// The most domains in the metric.
const MAX_SERIES: usize = 100;

/// The most domains in a warning.
const MAX_NAMED: usize = 20;

/// Reports the modes in force, until it is dropped.
pub(super) async fn run(shared: &Shared) {
    watch(&shared.modes, |modes| measure(&shared.metrics, modes), say).await;
}

/// Calls `measure` with each change, and `say` with what is not enforced: with each change of that
/// and, while there is something, every [`REMINDER`].
async fn watch(switch: &KillSwitch, measure: impl Fn(&[InForce]), mut say: impl FnMut(&[String])) {
    let mut changes = switch.changes();
    let mut said = Vec::new();
    let mut due = Instant::now() + REMINDER;
    loop {
        changes.mark_unchanged();
        let modes = switch.modes().in_force();
        measure(&modes);
        let open = not_enforced(&modes);
        let now = Instant::now();
        if open != said || (!open.is_empty() && now >= due) {
            say(&open);
            said = open;
            due = now + REMINDER;
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = tokio::time::sleep_until(due), if !said.is_empty() => {}
        }
    }
}

/// The global mode, and that of each domain that is not enforced.
fn measure(metrics: &Metrics, modes: &[InForce]) {
    let shown = modes.iter().filter(|own| own.domain.is_empty() || own.mode != Mode::Enforce);
    let series = shown.take(MAX_SERIES + 1);
    metrics
        .policies
        .show_modes(series.map(|own| (escape(&own.domain).to_string(), own.mode.word())));
}

/// Such as `all domains: shadow`, `edge: off`.
fn not_enforced(modes: &[InForce]) -> Vec<String> {
    let open = modes.iter().filter(|own| own.mode != Mode::Enforce);
    let text = |own: &InForce| match &own.domain {
        all if all.is_empty() => format!("all domains: {}", own.mode.word()),
        domain => format!("{}: {}", escape(domain), own.mode.word()),
    };
    open.map(text).collect()
}

fn say(open: &[String]) {
    if open.is_empty() {
        tracing::info!("limits are enforced again in every domain");
        return;
    }
    let mut modes = open.iter().take(MAX_NAMED).cloned().collect::<Vec<_>>().join(", ");
    if open.len() > MAX_NAMED {
        modes = format!("{modes} and {} more", open.len() - MAX_NAMED);
    }
    tracing::warn!(modes, "limits are not enforced; SetMode or the settings mode and modes end it");
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::limiter::mode::ModeLayer;

    #[tokio::test(start_paused = true)]
    async fn what_is_not_enforced_is_said_with_each_change_and_every_hour() {
        let switch = KillSwitch::default();
        let said = RefCell::new(Vec::new());
        let set = |global| switch.set_operator(&ModeLayer { global, ..ModeLayer::default() });
        let lines = || said.take();
        let rest = async |time| tokio::time::sleep(time).await;
        let second = Duration::from_secs(1);
        let operate = async {
            rest(second).await;
            assert_eq!(lines(), [""; 0], "all is enforced");
            rest(2 * REMINDER).await;
            set(Some(Mode::Enforce));
            rest(second).await;
            assert_eq!(lines(), [""; 0], "still");
            set(Some(Mode::Shadow));
            rest(second).await;
            assert_eq!(lines(), ["all domains: shadow"]);
            set(Some(Mode::Shadow));
            rest(REMINDER / 2).await;
            assert_eq!(lines(), [""; 0], "no change");
            rest(REMINDER * 2).await;
            assert_eq!(lines(), ["all domains: shadow", "all domains: shadow"]);
            set(Some(Mode::Off));
            rest(second).await;
            assert_eq!(lines(), ["all domains: off"]);
            set(None);
            rest(2 * REMINDER).await;
            assert_eq!(lines(), ["nothing"]);
        };
        let say = |open: &[String]| {
            let line = if open.is_empty() { "nothing".to_owned() } else { open.join(", ") };
            said.borrow_mut().push(line);
        };
        tokio::select! {
            () = watch(&switch, |_| {}, say) => panic!("it ends when it is dropped"),
            () = operate => {}
        }
    }
}
