//! Keeps the calendar clock of a process as the clock of its registry.
//!
//! One clock judges which clients have expired: that of Redis, or of this machine where the
//! registry is a file. A replica whose wall clock is wrong, was wrong at the start or has stood
//! still with its machine agrees with all others within a second. While the registry cannot be
//! reached the calendar goes on from what it last knew.

use std::time::Duration;

use super::registry::{Registry, RegistryError};
use crate::domain::{CalendarClock, Clock};

/// The interval between two readings of the registry's clock.
pub const DEFAULT_EVERY: Duration = Duration::from_secs(1);

/// A correction of so many microseconds is reported.
const MAX_QUIET_US: u64 = 1_000_000;

/// Corrects `calendar` to the clock of `registry`, `every` so often, until it is dropped.
pub async fn run<R: Registry, C: Clock>(
    registry: &R,
    calendar: &CalendarClock<C>,
    every: Duration,
) {
    loop {
        tokio::time::sleep(every).await;
        // The follower reports that the registry cannot be reached.
        drop(correct(registry, calendar).await);
    }
}

/// Corrects `calendar` to the clock of `registry`.
///
/// # Errors
/// When the registry does not answer; the calendar stays as it is.
pub async fn correct<R: Registry, C: Clock>(
    registry: &R,
    calendar: &CalendarClock<C>,
) -> Result<(), RegistryError> {
    let asked = calendar.now();
    let shown = registry.now().await?;
    let behind = calendar.correct(asked, shown);
    if behind.unsigned_abs() >= MAX_QUIET_US {
        let seconds = behind as f64 / 1e6;
        tracing::warn!(
            behind_seconds = seconds,
            "the calendar is corrected to the clock of the registry: it decides when clients expire"
        );
    }
    Ok(())
}
