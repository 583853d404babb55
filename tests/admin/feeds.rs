//! Feeds of policies: a refusal is repeated in the log while it lasts.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tollgate::control::feeds::{Feed, drive};
use tollgate::control::layered::{Origin, Standing};
use tollgate::policy::{Files, Source};

use crate::replica::World;
use crate::traffic::POLICY;

/// A feed of what is sent to it.
struct Sent(mpsc::Receiver<Files>);

impl Feed for Sent {
    const ORIGIN: Origin = Origin::Files;

    async fn next(&mut self) -> Files {
        match self.0.recv().await {
            Some(files) => files,
            None => std::future::pending().await,
        }
    }
}

/// Log lines of this thread.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn reminders(&self) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().clone()).unwrap();
        let old = |line: &&str| line.contains("the policies in force are older than");
        text.lines().filter(old).map(str::to_owned).collect()
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Lets `minutes` pass, and runs everything that is due.
async fn pass(minutes: u64) {
    for _ in 0..minutes * 4 {
        tokio::time::advance(Duration::from_secs(15)).await;
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn refusal_is_repeated_each_minute_until_policies_are_in_force() {
    let replica = World::new().replica().await;
    let (lines, (sender, receiver)) = (Lines::default(), mpsc::channel(1));
    let subscriber = {
        let lines = lines.clone();
        tracing_subscriber::fmt().with_ansi(false).with_writer(move || lines.clone()).finish()
    };
    let _guard = tracing::subscriber::set_default(subscriber);
    let driving = tokio::spawn(drive(Sent(receiver), Arc::clone(&replica.writer)));
    let metrics = &replica.shared.metrics;
    let refused = async |times| {
        while metrics.policies.reloads_failed.get() < times {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let bad = Source::new("bad.yaml", "domain: edge\nrules: []\n");
    sender.send(Files::of(vec![bad])).await.unwrap();
    refused(1).await;
    assert_eq!(lines.reminders().len(), 0);
    tokio::time::pause();
    pass(3).await;
    let told = lines.reminders();
    assert!((2..=3).contains(&told.len()), "{told:?}");
    assert!(told[0].contains("WARN") && told[0].contains("a restart would fail"), "{told:?}");
    assert!(told[0].contains("bad.yaml:2:1: unknown key"), "{told:?}");
    tokio::time::resume();

    // None at all, which is refused, too.
    sender.send(Files::of(Vec::new())).await.unwrap();
    refused(2).await;
    let standings = replica.writer.layered().standings("edge");
    assert!(matches!(standings[..], [(Origin::Files, _, Standing::InForce)]), "{standings:?}");
    tokio::time::pause();
    pass(2).await;
    let told = lines.reminders().split_off(told.len());
    assert!(told[0].contains("a restart would serve without them"), "{told:?}");
    tokio::time::resume();

    sender.send(Files::of(vec![Source::new("edge.yaml", POLICY)])).await.unwrap();
    while metrics.policies.reloads_ok.get() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let before = lines.reminders().len();
    tokio::time::pause();
    pass(3).await;
    assert_eq!(lines.reminders().len(), before);
    driving.abort();
}
