//! The start of a process, during which decisions wait for what operators changed.
//!
//! Without it a client has the limit of its rule, and a domain whose policy was applied has none.
//! Callers do not have to heed readiness, so each start would admit more than was promised.

use tokio::sync::SetOnce;
use tokio::time::{Instant, timeout_at};

use crate::store::Deadline;

/// The start of a process. Once it has ended, a decision reads one flag that nobody writes.
#[derive(Debug, Default)]
pub struct Start(SetOnce<()>);

impl Start {
    /// Ends the start: operators' changes are in force, or cannot be read.
    pub fn end(&self) {
        // Fails if it has ended before.
        let _ = self.0.set(());
    }

    /// Waits for the end, no longer than until `deadline`. A call is decided by what is known then:
    /// a million clients take seconds to read.
    pub(super) async fn wait(&self, mut deadline: Deadline) {
        while !self.0.initialized() {
            if timeout_at(deadline.due(), self.0.wait()).await.is_ok() {
                return;
            }
            // A process that is late itself may have the changes and not have run yet.
            let Some(extended) = deadline.extended(Instant::now()) else { return };
            deadline = extended;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    const TIME: Duration = Duration::from_millis(10);

    fn deadline() -> Deadline {
        Deadline::from(Instant::now() + TIME)
    }

    #[tokio::test(start_paused = true)]
    async fn decision_waits_for_the_end_of_the_start_and_not_after_it() {
        let start = Arc::new(Start::default());
        let (ended, begun) = (Arc::clone(&start), Instant::now());
        tokio::spawn(async move {
            tokio::time::sleep(TIME / 2).await;
            ended.end();
            ended.end();
        });
        start.wait(deadline()).await;
        assert_eq!(begun.elapsed(), TIME / 2);
        start.wait(deadline()).await;
        assert_eq!(begun.elapsed(), TIME / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn decision_waits_no_longer_than_its_deadline() {
        let begun = Instant::now();
        Start::default().wait(deadline()).await;
        // A timer has whole milliseconds, rounded up.
        assert!((TIME..=TIME + Duration::from_millis(1)).contains(&begun.elapsed()));
    }
}
