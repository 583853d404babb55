//! The guard of the admin services: callers send a token, unless none is set.
//!
//! The settings keep a listener without a token on loopback. Health and reflection are not guarded:
//! they disclose nothing that the source does not.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tonic::service::Interceptor;
use tonic::{Request, Status};

use crate::control::audit;

/// Lets calls pass that bear a token, and notes who makes them. A clone shares the tokens.
#[derive(Clone, Default)]
pub struct Guard(Arc<ArcSwap<Vec<Expected>>>);

/// A token that opens.
struct Expected {
    name: Arc<str>,
    digest: [u8; 32],
    fingerprint: Arc<str>,
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("tokens", &self.0.load().len()).finish()
    }
}

/// The caller.
#[derive(Clone, Debug, Default)]
pub struct Who {
    /// The address it comes from.
    pub peer: Option<SocketAddr>,
    /// The token that it bears; none where no token is set.
    pub token: Option<Bearer>,
}

/// A token as logs name it.
#[derive(Clone, Debug)]
pub struct Bearer {
    /// Its name.
    pub name: Arc<str>,
    /// The first digits of its hash, which tell a new token of the name from the old one.
    pub fingerprint: Arc<str>,
}

impl Who {
    /// The caller of `request`, as the guard noted it.
    pub(super) fn of<T>(request: &Request<T>) -> Self {
        request.extensions().get::<Self>().cloned().unwrap_or_default()
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.peer {
            Some(peer) => write!(f, "{peer}")?,
            None => f.write_str("unknown")?,
        }
        let Some(Bearer { name, fingerprint }) = &self.token else { return Ok(()) };
        write!(f, " {name} token {fingerprint}")
    }
}

impl Guard {
    /// Asks for one of these tokens, which have names; without any it lets every call pass.
    pub fn new<'a>(tokens: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let guard = Self::default();
        guard.replace(tokens);
        guard
    }

    /// Asks for these tokens from now on.
    pub fn replace<'a>(&self, tokens: impl IntoIterator<Item = (&'a str, &'a str)>) {
        let expected = |(name, token): (&str, &str)| {
            let digest = Sha256::digest(token);
            let fingerprint = format!("{digest:x}").chars().take(8).collect::<String>().into();
            Expected { name: name.into(), digest: digest.into(), fingerprint }
        };
        self.0.store(Arc::new(tokens.into_iter().map(expected).collect()));
    }

    /// The token of `tokens` that `request` bears.
    ///
    /// Compares hashes, each of them and in constant time: the time discloses nothing of a token.
    fn borne(tokens: &[Expected], request: &Request<()>) -> Option<Bearer> {
        let presented = request.metadata().get("authorization").and_then(|value| {
            let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| Sha256::digest(token.trim()))
        })?;
        let mut borne = None;
        for Expected { name, digest, fingerprint } in tokens {
            if presented.as_slice().ct_eq(digest).into() {
                let (name, fingerprint) = (Arc::clone(name), Arc::clone(fingerprint));
                borne = Some(Bearer { name, fingerprint });
            }
        }
        borne
    }
}

impl Interceptor for Guard {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let mut who = Who { peer: request.remote_addr(), token: None };
        let tokens = self.0.load();
        if !tokens.is_empty() {
            who.token = Self::borne(&tokens, &request);
            if who.token.is_none() {
                audit::refused(&who);
                return Err(Status::unauthenticated(
                    "authorization: send \"Bearer \" and a token that the server's setting \
                     admin.token, admin.tokens or a file of theirs holds",
                ));
            }
        }
        request.extensions_mut().insert(who);
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(guard: &Guard, authorization: Option<&str>) -> Result<Who, tonic::Code> {
        let mut request = Request::new(());
        if let Some(value) = authorization {
            request.metadata_mut().insert("authorization", value.parse().unwrap());
        }
        let passed = guard.clone().call(request).map_err(|status| status.code())?;
        Ok(Who::of(&passed))
    }

    #[test]
    fn only_a_token_opens_and_its_name_and_fingerprint_are_noted() {
        let guard = Guard::new([("ci", "s3cret"), ("alice", "other")]);
        for good in ["Bearer s3cret", "bearer s3cret", "BEARER  s3cret "] {
            let who = call(&guard, Some(good)).unwrap();
            assert_eq!(who.to_string(), "unknown ci token 1ec1c26b", "{good}");
        }
        assert!(call(&guard, Some("Bearer other")).unwrap().to_string().contains(" alice token "));
        for bad in ["s3cret", "Bearer", "Bearer ", "Bearer s3cre", "Bearer s3cret2", "Basic s3cret"]
        {
            assert_eq!(call(&guard, Some(bad)).unwrap_err(), tonic::Code::Unauthenticated, "{bad}");
        }
        assert_eq!(call(&guard, None).unwrap_err(), tonic::Code::Unauthenticated);
        assert!(!format!("{guard:?}").contains("s3cret"));
        guard.replace([("ci", "s3cret2")]);
        assert_eq!(call(&guard, Some("Bearer s3cret")).unwrap_err(), tonic::Code::Unauthenticated);
        assert!(call(&guard, Some("Bearer s3cret2")).is_ok());
    }

    #[test]
    fn without_a_token_everybody_passes() {
        assert!(call(&Guard::default(), None).unwrap().token.is_none());
    }
}
