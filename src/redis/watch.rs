//! The tasks behind a connector: they look after files that change, and ask sentinels.
//!
//! They run on the runtime that makes the connector, and end with its last clone.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use super::connect::{Connector, WeakConnector};

/// The interval at which files are read again. A poll, because it also sees files that are swapped
/// by a symbolic link, as those of Kubernetes secrets are.
const READ_EVERY: Duration = Duration::from_secs(1);

/// Starts the tasks that `connector` needs. Outside a runtime there are none.
pub(super) fn start(connector: &Connector) {
    let Ok(runtime) = Handle::try_current() else { return };
    let dropped = connector.dropped();
    if let Some(sentinels) = connector.locate().sentinels().map(Arc::clone) {
        runtime.spawn(dropped.clone().run_until_cancelled_owned(sentinels.run()));
    }
    if connector.has_files() {
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
