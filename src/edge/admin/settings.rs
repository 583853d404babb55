//! The section `admin` of the settings.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::settings::{Reader, Secret, section};

section! {
    /// The admin listener, gRPC.
    pub struct AdminSettings in "admin" {
        /// Address and port. Beyond loopback it requires a token.
        listen: SocketAddr = "127.0.0.1:8082",
        /// Token that callers send as `authorization: Bearer TOKEN`; unset = no authentication.
        token: Option<Secret> = "",
        /// File that holds `token`. An alternative to it.
        token_file: Option<PathBuf> = "",
    }
}

impl AdminSettings {
    /// Beyond loopback there is a token, and a header can carry it.
    pub(crate) fn resolve(&mut self, reader: &mut Reader) {
        reader.file("admin.token", &mut self.token, self.token_file.as_deref());
        let guarded = self.token.is_some() || self.token_file.is_some();
        if !self.listen.ip().is_loopback() && !guarded {
            let (listen, port) = (self.listen, self.listen.port());
            let message = format!(
                "found {listen}, but without a token the admin listener serves loopback only; set \
                 admin.token or admin.token_file, or write 127.0.0.1:{port}"
            );
            reader.refuse("admin.listen", message);
        }
        let sendable = |token: &Secret| token.expose().bytes().all(|byte| byte.is_ascii_graphic());
        if !self.token.as_ref().is_none_or(sendable) {
            let key = if self.token_file.is_some() { "admin.token_file" } else { "admin.token" };
            let message = "expected printable ASCII without blanks, as a header carries it";
            reader.refuse(key, message);
        }
    }
}
