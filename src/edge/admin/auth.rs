//! The guard of the admin services: callers show a token or a certificate, and each has a role.
//!
//! Without tokens and without roles for certificates, everybody who reaches the listener may do
//! everything; the settings keep such a listener on loopback, or behind client certificates.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::HeaderMap;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tonic::Status;
use tonic::service::Routes;

use super::failures::Failures;
use super::identity::{Identity, Role, Who};
use super::roles;
use super::settings::AdminSettings;
use crate::control::audit;
use crate::edge::listener::Peer;
use crate::edge::listener::tls::san::SanPatterns;

/// Services, and the guard that admits calls to them.
#[derive(Debug)]
pub struct Guarded {
    /// The services.
    pub routes: Routes,
    /// Their guard.
    pub guard: Guard,
}

/// Lets calls pass that may, and notes who makes them. A clone shares what it knows.
#[derive(Clone, Default)]
pub struct Guard(Arc<Shared>);

#[derive(Default)]
struct Shared {
    known: ArcSwap<Known>,
    failures: Failures,
}

/// The known identities.
#[derive(Default)]
struct Known {
    tokens: Vec<Token>,
    certificates: Vec<(SanPatterns, Role)>,
}

/// A token, by its hash alone.
struct Token {
    name: Arc<str>,
    digest: [u8; 32],
    fingerprint: Arc<str>,
    role: Role,
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = self.0.known.load();
        let (tokens, certificates) = (known.tokens.len(), known.certificates.len());
        f.debug_struct("Guard")
            .field("tokens", &tokens)
            .field("certificates", &certificates)
            .finish()
    }
}

impl Guard {
    /// Knows whom `settings` name.
    pub fn new(settings: &AdminSettings) -> Self {
        let guard = Self::default();
        guard.replace(settings);
        guard
    }

    /// Knows whom `settings` name from now on.
    pub fn replace(&self, settings: &AdminSettings) {
        let token = |(name, token): (&str, &str)| {
            let digest = Sha256::digest(token);
            let fingerprint = format!("{digest:x}").chars().take(8).collect::<String>().into();
            let role = settings.token_roles.get(name).copied().unwrap_or(Role::Admin);
            Token { name: name.into(), digest: digest.into(), fingerprint, role }
        };
        self.0.known.store(Arc::new(Known {
            tokens: settings.named_tokens().map(token).collect(),
            certificates: settings.certificate_roles().collect(),
        }));
    }

    /// The caller of the RPC at `path`, if it may make the call. `None`: the RPC is not guarded.
    ///
    /// # Errors
    /// Fails with the status for the caller: after a while, if it has failed often.
    pub(in crate::edge) async fn admit(
        &self,
        path: &str,
        headers: &HeaderMap,
        peer: &Peer,
    ) -> Result<Option<Who>, Status> {
        let Some(needed) = roles::needed(path) else { return Ok(None) };
        let (ip, failures) = (peer.address.ip(), &self.0.failures);
        if failures.is_flooded_by(ip) {
            return Err(Status::resource_exhausted(
                "too many calls with a wrong token wait for their answer; try again in a minute",
            ));
        }
        let admitted = self.identify(headers, peer).and_then(|who| {
            who.may(needed).inspect_err(|status| self.log(&who, status))?;
            Ok(who)
        });
        if let Err(status) = &admitted
            && status.code() == tonic::Code::Unauthenticated
        {
            let who = Who { peer: peer.address, identity: None, role: Role::Read };
            self.log(&who, status);
            failures.slow_down(ip).await;
        }
        admitted.map(Some)
    }

    fn log(&self, who: &Who, status: &Status) {
        if let Some(silent) = self.0.failures.line_is_due() {
            audit::refused(who, status.message(), silent);
        }
    }

    /// The identity of a caller: by the token if there is one, else by the certificate.
    fn identify(&self, headers: &HeaderMap, peer: &Peer) -> Result<Who, Status> {
        let known = self.0.known.load();
        let who = |identity, role| Who { peer: peer.address, identity, role };
        if let Some(authorization) = headers.get("authorization")
            && !known.tokens.is_empty()
        {
            let token = bearer(authorization.to_str().unwrap_or_default());
            let token = token.and_then(|token| known.token(token)).ok_or_else(unauthenticated)?;
            let (name, fingerprint) = (Arc::clone(&token.name), Arc::clone(&token.fingerprint));
            return Ok(who(Some(Identity::Token { name, fingerprint }), token.role));
        }
        let first = peer.names.iter().flat_map(|names| names.iter()).next().map(str::to_owned);
        if let Some((name, role)) = known.certificate(peer) {
            return Ok(who(Some(Identity::Certificate(name)), role));
        }
        if known.tokens.is_empty() && known.certificates.is_empty() {
            return Ok(who(first.map(Identity::Certificate), Role::Admin));
        }
        Err(unauthenticated())
    }
}

impl Known {
    /// The token that `presented` is.
    ///
    /// Compares hashes, each of them and in constant time: the time discloses nothing of a token.
    fn token(&self, presented: &str) -> Option<&Token> {
        let presented = Sha256::digest(presented);
        let mut found = None;
        for token in &self.tokens {
            if presented.as_slice().ct_eq(&token.digest).into() {
                found = Some(token);
            }
        }
        found
    }

    /// The highest role of the certificate of `peer`, and the name that has it.
    fn certificate(&self, peer: &Peer) -> Option<(String, Role)> {
        let names = peer.names.as_deref()?;
        let fitting = self.certificates.iter().filter_map(|(patterns, role)| {
            let name = names.iter().find(|name| patterns.fits(name))?;
            Some((name.to_owned(), *role))
        });
        fitting.max_by_key(|(_, role)| *role)
    }
}

/// The token of a header `authorization: Bearer TOKEN`.
fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn unauthenticated() -> Status {
    Status::unauthenticated(
        "authorization: send \"Bearer \" and a token that the server's setting admin.token, \
         admin.tokens or a file of theirs holds, or a certificate with a name of admin.san_roles",
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tokio::time::Instant;
    use tonic::Code;

    use super::*;
    use crate::settings::Secret;
    use crate::tls::certificate::Names;

    const READ: &str = "/tollgate.v1.PolicyService/ListModes";
    const CHANGE: &str = "/tollgate.v1.PolicyService/SetMode";

    fn guard(
        tokens: &[(&str, &str)],
        token_roles: &[(&str, Role)],
        san_roles: &[(&str, Role)],
    ) -> (Guard, AdminSettings) {
        let roles = |roles: &[(&str, Role)]| -> BTreeMap<String, Role> {
            roles.iter().map(|(name, role)| ((*name).to_owned(), *role)).collect()
        };
        let token = |(name, token): &(&str, &str)| ((*name).to_owned(), Secret::new(token));
        let settings = AdminSettings {
            tokens: tokens.iter().map(token).collect(),
            token_roles: roles(token_roles),
            san_roles: roles(san_roles),
            ..AdminSettings::default()
        };
        (Guard::new(&settings), settings)
    }

    async fn admit(
        guard: &Guard,
        path: &str,
        authorization: Option<&str>,
        names: Option<&[&str]>,
    ) -> Result<String, Code> {
        let mut headers = HeaderMap::new();
        if let Some(value) = authorization {
            headers.insert("authorization", value.parse().unwrap());
        }
        let names = names.map(|names| Arc::new(Names::new(names)));
        let peer = Peer { address: ([127, 0, 0, 1], 7).into(), names };
        let who = guard.admit(path, &headers, &peer).await.map_err(|status| status.code())?;
        Ok(who.map(|who| who.to_string()).unwrap_or_default())
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_token_opens_and_its_name_and_fingerprint_are_noted() {
        let (guard, mut settings) = guard(&[("ci", "s3cret"), ("alice", "other")], &[], &[]);
        for good in ["Bearer s3cret", "bearer s3cret", "BEARER  s3cret "] {
            let who = admit(&guard, CHANGE, Some(good), None).await.unwrap();
            assert_eq!(who, "127.0.0.1:7 ci token 1ec1c26b", "{good}");
        }
        let who = admit(&guard, CHANGE, Some("Bearer other"), None).await.unwrap();
        assert!(who.contains(" alice token "), "{who}");
        for bad in ["s3cret", "Bearer", "Bearer ", "Bearer s3cre", "Bearer s3cret2", "Basic s3cret"]
        {
            let refused = admit(&guard, READ, Some(bad), None).await;
            assert_eq!(refused, Err(Code::Unauthenticated), "{bad}");
        }
        assert_eq!(admit(&guard, READ, None, None).await, Err(Code::Unauthenticated));
        assert!(!format!("{guard:?}").contains("s3cret"));
        settings.tokens.insert("ci".to_owned(), Secret::new("s3cret2"));
        guard.replace(&settings);
        let old = admit(&guard, READ, Some("Bearer s3cret"), None).await;
        assert_eq!(old, Err(Code::Unauthenticated));
        assert!(admit(&guard, READ, Some("Bearer s3cret2"), None).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn roles_bound_what_tokens_and_certificates_may_do() {
        let tokens = [("board", "t1"), ("ops", "t2")];
        let certificates = [("spiffe://mesh/*", Role::Read), ("spiffe://mesh/ops", Role::Admin)];
        let (guard, _) = guard(&tokens, &[("board", Role::Read)], &certificates);
        let forbidden = Err(Code::PermissionDenied);
        for (token, names, changes) in [
            (Some("Bearer t1"), None, forbidden.clone()),
            (Some("Bearer t2"), None, Ok("127.0.0.1:7 ops token 4c3bb0ac".to_owned())),
            (None, Some(&["spiffe://mesh/web"][..]), forbidden.clone()),
            (
                None,
                Some(&["spiffe://mesh/ops"][..]),
                Ok("127.0.0.1:7 spiffe://mesh/ops certificate".to_owned()),
            ),
            // The token counts, not the certificate.
            (Some("Bearer t1"), Some(&["spiffe://mesh/ops"][..]), forbidden),
        ] {
            assert!(admit(&guard, READ, token, names).await.is_ok(), "{token:?} {names:?}");
            let changed = admit(&guard, CHANGE, token, names).await;
            let said = changed.map(|who| who.split(" token ").next().unwrap().to_owned());
            let expected = changes.map(|who| who.split(" token ").next().unwrap().to_owned());
            assert_eq!(said, expected, "{token:?} {names:?}");
        }
        let stranger = admit(&guard, READ, None, Some(&["other.example"])).await;
        assert_eq!(stranger, Err(Code::Unauthenticated));
        let wrong = admit(&guard, READ, Some("Bearer x"), Some(&["spiffe://mesh/ops"])).await;
        assert_eq!(wrong, Err(Code::Unauthenticated));
    }

    #[tokio::test(start_paused = true)]
    async fn without_tokens_and_roles_everybody_passes_and_health_is_open_always() {
        assert_eq!(admit(&Guard::default(), CHANGE, None, None).await.unwrap(), "127.0.0.1:7");
        let named = admit(&Guard::default(), CHANGE, None, Some(&["a.example"])).await;
        assert_eq!(named.unwrap(), "127.0.0.1:7 a.example certificate");
        let (guard, _) = guard(&[("ci", "s3cret")], &[], &[]);
        let health = "/grpc.health.v1.Health/Check";
        assert_eq!(admit(&guard, health, None, None).await, Ok(String::new()));
    }

    #[tokio::test(start_paused = true)]
    async fn wrong_tokens_are_slowed_down_and_right_ones_are_not() {
        let (guard, _) = guard(&[("ci", "s3cret")], &[], &[]);
        let begun = Instant::now();
        for _ in 0..6 {
            assert!(admit(&guard, READ, Some("Bearer x"), None).await.is_err());
        }
        assert_eq!(begun.elapsed().as_secs(), 3);
        assert!(admit(&guard, READ, Some("Bearer s3cret"), None).await.is_ok());
        assert_eq!(begun.elapsed().as_secs(), 3);
    }
}
