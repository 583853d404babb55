//! The inspection of the server: faults that make decisions wrong or fail later, named at once.
//!
//! * `facts`: version, role and eviction, by INFO. `permissions`: what the ACL of the user lacks.
//! * `nodes`: the findings at the primaries of a cluster as one list.
//!
//! It runs apart from decisions, on a connection of its own: after each connect, and each minute.
//! In a cluster it connects to every primary, when the map of slots changes and each minute.

mod facts;
mod finding;
mod nodes;
mod permissions;

use std::collections::BTreeSet;
use std::time::Duration;

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{RedisError, Value};

pub(crate) use self::finding::Finding;
use super::backoff::Backoff;
use super::cluster::Cluster;
use super::connect::Connector;
use super::multiplex::Driver;

/// The interval of inspections on a connection.
const INSPECT_EVERY: Duration = Duration::from_mins(1);

/// The longest that an inspection takes.
const PATIENCE: Duration = Duration::from_secs(5);

/// The findings of the last inspection.
#[derive(Debug, Default)]
pub(crate) struct Inspection {
    found: Mutex<Vec<Finding>>,
    /// The faults that were logged and are still there.
    logged: Mutex<BTreeSet<String>>,
}

impl Inspection {
    /// The findings of the last inspection; empty before the first.
    pub(crate) fn found(&self) -> Vec<Finding> {
        self.found.lock().clone()
    }

    /// Logs each fault once while it lasts.
    fn report(&self, found: Vec<Finding>) {
        let faults = found.iter().filter_map(|finding| finding.fault.clone());
        let faults = faults.collect::<BTreeSet<_>>();
        let mut logged = self.logged.lock();
        for fault in faults.difference(&logged) {
            tracing::warn!("{fault}");
        }
        *logged = faults;
        *self.found.lock() = found;
    }

    /// Inspects the server behind `connector` until it is dropped. `prefix`: that of all keys.
    pub(crate) async fn run(&self, connector: &Connector, prefix: &str) {
        match connector.cluster() {
            Some(cluster) => self.run_in_cluster(cluster, connector, prefix).await,
            None => self.run_on_server(connector, prefix).await,
        }
    }

    async fn run_in_cluster(&self, cluster: &Cluster, connector: &Connector, prefix: &str) {
        let (mut changes, mut backoff) = (cluster.changes(), Backoff::new());
        // The map names more nodes than the settings.
        drop(cluster.tried().await);
        loop {
            changes.mark_unchanged();
            let mut found = Vec::new();
            for node in cluster.nodes() {
                let connector = connector.at(node.clone());
                let Ok(link) = connector.connect().await else { continue };
                connector.refusals().forget();
                let mut driver = link.driver;
                let seen = look(&connector, prefix, true, &link.connection, &mut driver).await;
                found.extend(seen.map(|seen| (node.to_string(), seen)));
            }
            if found.is_empty() {
                tokio::time::sleep(backoff.wait()).await;
                continue;
            }
            self.report(nodes::join(found));
            backoff.reset();
            // The sender lives as long as the cluster.
            drop(tokio::time::timeout(INSPECT_EVERY, changes.changed()).await);
        }
    }

    async fn run_on_server(&self, connector: &Connector, prefix: &str) {
        let mut backoff = Backoff::new();
        loop {
            if let Ok(link) = connector.connect().await {
                connector.refusals().forget();
                let mut driver = link.driver;
                while let Some(found) =
                    look(connector, prefix, false, &link.connection, &mut driver).await
                {
                    self.report(found);
                    backoff.reset();
                    let open = tokio::select! {
                        () = &mut driver => false,
                        () = tokio::time::sleep(INSPECT_EVERY) => true,
                    };
                    if !open {
                        break;
                    }
                    if let Some(command) = link.line.new_login().and_then(|login| login.command()) {
                        drop(ask(&command, &link.connection, &mut driver).await);
                    }
                }
            }
            tokio::time::sleep(backoff.wait()).await;
        }
    }
}

/// One inspection; `None` if the connection is lost.
async fn look(
    connector: &Connector,
    prefix: &str,
    in_cluster: bool,
    connection: &MultiplexedConnection,
    driver: &mut Driver,
) -> Option<Vec<Finding>> {
    let mut found = Vec::new();
    match ask(&redis::cmd("INFO"), connection, driver).await? {
        Ok(info) => found.extend(facts::findings(&facts::text(&info))),
        Err(error) => tracing::debug!(%error, "the server is not inspected"),
    }
    let mut lacks = permissions::Lacks::default();
    for probe in permissions::probes(prefix, in_cluster) {
        match ask(&probe.command(), connection, driver).await? {
            Ok(_) => {}
            Err(error) => lacks.note(&probe, &error.to_string()),
        }
    }
    let subscribed = connector.subscribe(&permissions::channel(prefix)).await;
    if let Err(reason) = subscribed {
        lacks.note_subscribe(&reason);
    }
    found.extend(lacks.findings(prefix));
    Some(found)
}

async fn ask(
    command: &redis::Cmd,
    connection: &MultiplexedConnection,
    driver: &mut Driver,
) -> Option<Result<Value, RedisError>> {
    let mut connection = connection.clone();
    tokio::select! {
        answer = command.query_async(&mut connection) => Some(answer),
        () = driver => None,
        () = tokio::time::sleep(PATIENCE) => None,
    }
}
