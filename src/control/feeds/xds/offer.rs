//! The messages between the subscription and its feed.

use std::sync::Arc;

use tokio::sync::{SetOnce, oneshot};

use crate::policy::Files;

/// Policies of a response, and the way back of their outcome.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) files: Files,
    /// Gets the reason if they are refused.
    pub(super) outcome: oneshot::Sender<Result<(), String>>,
}

/// The first response of the control plane.
#[derive(Clone, Debug, Default)]
pub struct FirstResponse(Arc<SetOnce<()>>);

impl FirstResponse {
    /// Waits until it was put in force or refused.
    pub async fn settled(&self) {
        self.0.wait().await;
    }

    pub(super) fn note(&self) {
        // Fails if there was one before.
        let _ = self.0.set(());
    }
}
