//! Panics as log lines: a supervisor that reads JSON does not meet raw text.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};

thread_local! {
    /// This thread is within [`caught`].
    static CATCHING: Cell<bool> = const { Cell::new(false) };
}

/// Writes each panic of the process as an ERROR line, where such lines are logged at all. Panics
/// within `caught` are left to its caller.
pub fn install() {
    let raw = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if CATCHING.get() {
            return;
        }
        if !tracing::enabled!(tracing::Level::ERROR) {
            return raw(panic);
        }
        let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
        let place = panic.location().map_or(String::new(), ToString::to_string);
        let message = message(panic.payload());
        tracing::error!(thread, place, reason = message, "panicked; please report this");
    }));
}

/// Runs `work`, which must leave nothing half done behind that is used afterwards.
///
/// # Errors
/// The message of its panic, which is not logged.
pub(crate) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    let outer = CATCHING.replace(true);
    let outcome = panic::catch_unwind(AssertUnwindSafe(work));
    CATCHING.set(outer);
    outcome.map_err(|payload| message(&*payload))
}

fn message(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(ToString::to_string);
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "a panic without a message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panic_is_an_error_with_its_message() {
        assert_eq!(caught(|| 7), Ok(7));
        let number = 3;
        assert_eq!(caught(|| panic!("it is {number}")), Err::<(), _>("it is 3".to_owned()));
        assert!(!CATCHING.get());
    }
}
