//! The callers of the admin listener and their roles.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use tonic::{Request, Status};

use crate::settings::{mappings, words};

/// The rights of an identity; each role has those of the roles before it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Role {
    /// Get, list, explain, rank.
    Read,
    /// Change and reset single clients.
    Write,
    /// Change policies and modes.
    Admin,
}

words!(Role { "read" => Read, "write" => Write, "admin" => Admin });
mappings!(Role, "a mapping from name to read, write or admin");

/// The caller.
#[derive(Clone, Debug)]
pub struct Who {
    /// The address it comes from.
    pub peer: SocketAddr,
    /// The proof of its identity; `None` where none is asked for.
    pub identity: Option<Identity>,
    /// Its rights.
    pub role: Role,
}

/// The proof of a caller's identity.
#[derive(Clone, Debug)]
pub enum Identity {
    /// By a token.
    Token {
        /// Its name.
        name: Arc<str>,
        /// The first digits of its hash, which tell a new token of the name from the old one.
        fingerprint: Arc<str>,
    },
    /// By a certificate, with the name that has the role, or the first.
    Certificate(String),
}

impl Who {
    /// The caller of `request`, as the guard noted it.
    ///
    /// # Errors
    /// Fails if the guard was not asked, which would be a fault of tollgate.
    pub(super) fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        let who = request.extensions().get::<Self>().cloned();
        who.ok_or_else(|| Status::internal("the guard of the admin listener was not asked"))
    }

    /// Refuses what takes another role than the caller has.
    pub(super) fn may(&self, needed: Role) -> Result<(), Status> {
        if self.role >= needed {
            return Ok(());
        }
        let (who, has, needed) = (self.name(), word(self.role), word(needed));
        Err(Status::permission_denied(format!(
            "{who} has the role {has}, this takes {needed}; the server's settings admin.token_roles \
             and admin.san_roles give roles"
        )))
    }

    /// The caller without its address.
    fn name(&self) -> String {
        self.identity.as_ref().map_or_else(|| "the caller".to_owned(), ToString::to_string)
    }
}

fn word(role: Role) -> &'static str {
    crate::settings::Word::word(role)
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token { name, fingerprint } => write!(f, "{name} token {fingerprint}"),
            Self::Certificate(name) => write!(f, "{name} certificate"),
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.peer)?;
        self.identity.as_ref().map_or(Ok(()), |identity| write!(f, " {identity}"))
    }
}
