//! Feeds of whole policy sets, and the loop that brings what they read to the writer.
//!
//! * [`files`]: a file or directory that is watched.
//! * [`xds`]: a control plane.
//!
//! The registry is no such feed: its follower brings single records.

pub mod files;
pub mod xds;

use std::future::{Future, pending};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::layered::{Origin, Refusal};
use super::writer::Writer;
use crate::policy::Files;

/// The interval at which a refusal is repeated while it lasts.
const REMIND_EVERY: Duration = Duration::from_mins(1);

/// A feed of policies, each time of all that it has.
pub trait Feed: Send + 'static {
    /// Its precedence among feeds.
    const ORIGIN: Origin;

    /// Waits until there is something new, and returns everything.
    ///
    /// # Cancel safety
    /// Dropped, it forgets nothing: the next call returns what is new.
    fn next(&mut self) -> impl Future<Output = Files> + Send;

    /// Learns what became of that which [`Self::next`] returned last.
    fn settled(&mut self, _outcome: &Result<(), Refusal>) {}
}

/// Brings everything that `feed` reads to `writer`, until it is dropped. A refusal is repeated in
/// the log until the feed reads something that is put in force.
pub async fn drive<F: Feed>(mut feed: F, writer: Arc<Writer>) {
    let mut refused: Option<(Refusal, Instant)> = None;
    loop {
        let reminder = async {
            match &refused {
                Some((refusal, last)) => {
                    tokio::time::sleep_until(*last + REMIND_EVERY).await;
                    remind(F::ORIGIN, refusal);
                }
                None => pending().await,
            }
        };
        tokio::select! {
            files = feed.next() => {
                let outcome = writer.replace(F::ORIGIN, files).await;
                feed.settled(&outcome);
                refused = outcome.err().map(|refusal| (refusal, Instant::now()));
            }
            () = reminder => if let Some((_, last)) = &mut refused { *last = Instant::now() },
        }
    }
}

fn remind(origin: Origin, refusal: &Refusal) {
    let feed = origin.name();
    let (restart, reason) = match refusal {
        Refusal::Faults(faults) => {
            let (first, count) = (faults.faults().first(), faults.faults().len());
            let first = first.map_or(String::new(), |f| format!("{}: {}", f.place, f.message));
            ("a restart would fail", format!("{count} faults, the first {first}"))
        }
        Refusal::Empty(_) => ("a restart would serve without them", refusal.to_string()),
        Refusal::Failed(_) => ("a restart may fail", refusal.to_string()),
    };
    // A control plane is told, and a restart asks it again.
    let restart = if origin == Origin::Xds { "its last response is refused" } else { restart };
    tracing::warn!(feed, reason, "the policies in force are older than the feed's; {restart}");
}
