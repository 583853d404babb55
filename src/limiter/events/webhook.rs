//! The settings of the webhook.

use std::path::PathBuf;
use std::time::Duration;

use crate::outward::Endpoint;
use crate::settings::{Headers, Reader, SOME_TIME, section};

section! {
    /// A receiver of events: `CloudEvents` 1.0 in JSON batches, by POST.
    pub struct WebhookSettings in "events.webhook" {
        /// URL, such as `https://hooks.example/tollgate`; unset = no webhook.
        endpoint: Option<Endpoint> = "",
        /// Headers of each request, such as `authorization=Bearer TOKEN`.
        headers: Option<Headers> = "",
        /// File that holds `headers`. An alternative to it.
        headers_file: Option<PathBuf> = "",
        /// File with the certificates of the authorities to trust, PEM; unset = those of the
        /// system.
        ca_file: Option<PathBuf> = "",
        /// Time for one request, connecting included.
        timeout: Duration = "5s" in SOME_TIME..,
    }
}

impl WebhookSettings {
    /// Reads the file of its headers.
    pub(crate) fn resolve(&mut self, reader: &mut Reader) {
        reader.file("events.webhook.headers", &mut self.headers, self.headers_file.as_deref());
    }
}
