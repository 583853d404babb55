//! The task behind a connector: it looks after files that change.
//!
//! It runs on the runtime that makes the connector, and ends with its last clone.

use std::time::Duration;

use tokio::runtime::Handle;

use super::connect::{Connector, WeakConnector};

/// The interval at which files are read again. A poll, because it also sees files that are swapped
/// by a symbolic link, as those of Kubernetes secrets are.
const READ_EVERY: Duration = Duration::from_secs(1);

/// Starts the task, if `connector` has files. Outside a runtime there is none.
pub(super) fn start(connector: &Connector) {
    let Ok(runtime) = Handle::try_current() else { return };
    if connector.has_files() {
        let dropped = connector.dropped();
        let connector = connector.downgrade();
        runtime.spawn(dropped.run_until_cancelled_owned(refresh(connector)));
    }
}

async fn refresh(connector: WeakConnector) {
    loop {
        tokio::time::sleep(READ_EVERY).await;
        let Some(connector) = connector.upgrade() else { return };
        connector.refresh().await;
    }
}
