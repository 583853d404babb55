//! The section `admin` of the settings.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::identity::Role;
use super::tokens::{self, NOT_SENDABLE, OPERATOR, is_sendable};
use crate::edge::listener::tls::san::SanPatterns;
use crate::edge::listener::tls::settings::AdminTlsSettings;
use crate::settings::{Reader, Secret, Setting as _, section};

section! {
    /// The admin listener, gRPC.
    pub struct AdminSettings in "admin" {
        /// Address and port. Beyond loopback it requires a token.
        listen: SocketAddr = "127.0.0.1:8082",
        /// Token that callers send as `authorization: Bearer TOKEN`; its name in the audit log is
        /// `operator`. Without any token there is no authentication.
        token: Option<Secret> = "",
        /// File that holds `token`. An alternative to it.
        token_file: Option<PathBuf> = "",
        /// More tokens, by the name that the audit log shows, such as `{ci: TOKEN}`. In the file
        /// only. Read again on SIGHUP.
        tokens: BTreeMap<String, Secret> = "",
        /// YAML file with such a mapping. An alternative to `tokens`. Read again on SIGHUP.
        tokens_file: Option<PathBuf> = "",
        /// What a token may do, by its name: `read` = get, list, explain; `write` = change clients
        /// and plans too; `admin` = change policies and modes too. A token without an entry is
        /// `admin`. In the file only.
        token_roles: BTreeMap<String, Role> = "",
        /// The same for client certificates, by alternative name; a `*` at the start or the end
        /// stands for any text. A certificate with none of the names needs a token. In the file
        /// only.
        san_roles: BTreeMap<String, Role> = "",
        /// Approximate number of callers that each thread ranks for `tollgate admin top`, and the
        /// same again by denials; 0 = off. Each takes at most 3 KiB.
        top_callers: usize = "1024" in 0..=1_000_000,
    }
    with {
        /// TLS.
        tls: AdminTlsSettings,
    }
}

impl AdminSettings {
    /// Beyond loopback there is a token, and a header can carry each.
    pub(crate) fn resolve(&mut self, reader: &mut Reader) {
        reader.file("admin.token", &mut self.token, self.token_file.as_deref());
        if !self.token.as_ref().is_none_or(is_sendable) {
            let key = if self.token_file.is_some() { "admin.token_file" } else { "admin.token" };
            reader.refuse(key, NOT_SENDABLE);
        }
        self.resolve_tokens(reader);
        self.tls.resolve(reader);
        self.resolve_roles(reader);
        let guarded = self.token.is_some()
            || self.token_file.is_some()
            || !self.tokens.is_empty()
            || self.tokens_file.is_some()
            || self.tls.client_ca_file.is_some();
        if !self.listen.ip().is_loopback() && !guarded {
            let (listen, port) = (self.listen, self.listen.port());
            let message = format!(
                "found {listen}, but without a token the admin listener serves loopback only; set \
                 admin.token, admin.token_file or admin.tls.client_ca_file, or write \
                 127.0.0.1:{port}"
            );
            reader.refuse("admin.listen", message);
        }
    }

    fn resolve_tokens(&mut self, reader: &mut Reader) {
        let mut key = "admin.tokens";
        if let Some(path) = &self.tokens_file {
            key = "admin.tokens_file";
            let read = if self.tokens.is_empty() {
                tokens::of_file(path)
            } else {
                Err("admin.tokens is set too; set one of them".to_owned())
            };
            match read {
                Ok(read) if read.is_empty() => reader.refuse(key, "the file has no tokens"),
                Ok(read) => self.tokens = read,
                Err(message) => reader.refuse(key, message),
            }
        }
        let mut known: Vec<(&str, &Secret)> =
            self.token.iter().map(|token| (OPERATOR, token)).collect();
        for (name, token) in &self.tokens {
            if let Some(fault) = tokens::fault(name, token) {
                reader.refuse(key, fault);
            }
            for (other, theirs) in &known {
                if name == other {
                    reader.refuse(key, format!("{name} is the name of admin.token"));
                } else if token == *theirs {
                    reader.refuse(key, format!("{name} has the token of {other}"));
                }
            }
            known.push((name, token));
        }
    }

    /// Roles are those of tokens and certificates that there can be.
    fn resolve_roles(&self, reader: &mut Reader) {
        let names: Vec<&str> = self.named_tokens().map(|(name, _)| name).collect();
        for name in self.token_roles.keys().filter(|name| !names.contains(&name.as_str())) {
            let message = format!("{name:?} is the name of no token");
            reader.refuse("admin.token_roles", message);
        }
        for name in self.san_roles.keys().filter(|name| SanPatterns::parse(name).is_none()) {
            let message = format!("found {name:?}, expected a name, with `*` at one end at most");
            reader.refuse("admin.san_roles", message);
        }
        if !self.san_roles.is_empty() && self.tls.client_ca_file.is_none() {
            let message = "has no effect without admin.tls.client_ca_file";
            reader.refuse("admin.san_roles", message);
        }
    }

    /// The roles of certificates, by the names that have them.
    pub(super) fn certificate_roles(&self) -> impl Iterator<Item = (SanPatterns, Role)> {
        let parsed = |(name, role): (&String, &Role)| Some((SanPatterns::parse(name)?, *role));
        self.san_roles.iter().filter_map(parsed)
    }

    /// Drops the tokens themselves.
    pub(crate) fn forget_tokens(&mut self) {
        self.token = None;
        self.tokens.clear();
    }

    /// Every token with its name.
    pub(crate) fn named_tokens(&self) -> impl Iterator<Item = (&str, &str)> {
        let own = self.token.iter().map(|token| (OPERATOR, token.expose()));
        own.chain(self.tokens.iter().map(|(name, token)| (name.as_str(), token.expose())))
    }
}
