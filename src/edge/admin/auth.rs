//! Who may administer: whoever sends the token, or anybody where none is set.
//!
//! That a listener without a token stays on loopback is for the settings to see to. Health and reflection are not
//! guarded: they tell nothing that the source does not.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tonic::service::Interceptor;
use tonic::{Request, Status};

use crate::control::audit;

/// Lets calls pass that bear the token, and notes who makes them.
#[derive(Clone)]
pub struct Guard(Option<Expected>);

#[derive(Clone)]
struct Expected {
    digest: [u8; 32],
    fingerprint: Arc<str>,
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("asks", &self.0.is_some()).finish()
    }
}

/// Who makes a call.
#[derive(Clone, Debug, Default)]
pub struct Who {
    /// The address it comes from.
    pub peer: Option<SocketAddr>,
    /// The first digits of the token's hash, to tell tokens apart in logs; none where no token is asked for.
    pub token: Option<Arc<str>>,
}

impl Who {
    /// Who made `request`, as the guard noted it.
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
        self.token.as_ref().map_or(Ok(()), |token| write!(f, " token {token}"))
    }
}

impl Guard {
    /// Asks for `token`; none: lets everybody pass.
    pub fn new(token: Option<&str>) -> Self {
        Self(token.map(|token| {
            let digest = Sha256::digest(token);
            let fingerprint = format!("{digest:x}").chars().take(8).collect::<String>().into();
            Expected { digest: digest.into(), fingerprint }
        }))
    }

    /// Compares hashes, in constant time: neither the time nor the length tells anything of the token.
    fn accepts(expected: &Expected, request: &Request<()>) -> bool {
        let presented = request.metadata().get("authorization").and_then(|value| {
            let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| Sha256::digest(token.trim()))
        });
        presented.is_some_and(|digest| digest.as_slice().ct_eq(&expected.digest).into())
    }
}

impl Interceptor for Guard {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let mut who = Who { peer: request.remote_addr(), token: None };
        if let Some(expected) = &self.0 {
            if !Self::accepts(expected, &request) {
                audit::refused(&who);
                return Err(Status::unauthenticated(
                    "authorization: send \"Bearer \" and the token that the server's setting \
                     admin.token or admin.token_file holds",
                ));
            }
            who.token = Some(Arc::clone(&expected.fingerprint));
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
    fn only_the_token_opens_and_it_is_noted_by_its_fingerprint() {
        let guard = Guard::new(Some("s3cret"));
        for good in ["Bearer s3cret", "bearer s3cret", "BEARER  s3cret "] {
            let who = call(&guard, Some(good)).unwrap();
            assert_eq!(who.token.as_deref().map(str::len), Some(8), "{good}");
            assert!(!who.to_string().contains("s3cret"));
        }
        for bad in ["s3cret", "Bearer", "Bearer ", "Bearer s3cre", "Bearer s3cret2", "Basic s3cret"]
        {
            assert_eq!(call(&guard, Some(bad)).unwrap_err(), tonic::Code::Unauthenticated, "{bad}");
        }
        assert_eq!(call(&guard, None).unwrap_err(), tonic::Code::Unauthenticated);
        assert!(!format!("{guard:?}").contains("s3cret"));
    }

    #[test]
    fn without_a_token_everybody_passes() {
        assert!(call(&Guard::new(None), None).unwrap().token.is_none());
    }
}
