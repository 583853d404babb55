//! Options of a store besides the settings of Redis.

use std::sync::Arc;
use std::time::Duration;

use super::notices::Notices;
use crate::store::recovery::{Recovery, Teller};
use crate::store::{Allowance, Suspects};
use crate::telemetry::metrics::CallMetrics;

/// Maximum number of requests that wait to be sent; more are rejected.
pub const MAX_WAITING: usize = 8_192;

/// Options of a store besides the settings of Redis.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Maximum number of requests that wait to be sent; more are rejected.
    pub max_waiting: usize,
    /// The time after which Redis counts as late.
    pub allowance: Allowance,
    /// Stores that share them log each event of their connections once.
    pub notices: Notices,
    /// State that the stores of a process share about charges unknown to Redis.
    pub recovery: Arc<Recovery>,
    /// Knows the charges that Redis is to be told.
    pub teller: Option<Arc<dyn Teller>>,
    /// Metrics of each call of the script.
    pub calls: CallMetrics,
    /// Knows which counters of a request over several slots will probably deny it.
    pub suspects: Option<Arc<dyn Suspects>>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            max_waiting: MAX_WAITING,
            allowance: Duration::from_millis(10).into(),
            notices: Notices::default(),
            recovery: Arc::default(),
            teller: None,
            calls: CallMetrics::default(),
            suspects: None,
        }
    }
}
