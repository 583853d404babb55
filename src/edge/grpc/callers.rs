//! The peers that may ask about a domain, by the names of their certificates:
//! `grpc.tls.domain_san`.
//!
//! It holds for gRPC and for `/json`, so that neither is a way around the other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::edge::listener::Peer;
use crate::edge::listener::tls::san::SanPatterns;

/// The answer to a caller that may not ask.
pub(in crate::edge) const FORBIDDEN: &str =
    "the certificate of the caller has no name that grpc.tls.domain_san lists for this domain";

/// The domains that not every caller may ask about.
#[derive(Debug, Default)]
pub struct Callers(BTreeMap<Bytes, SanPatterns>);

/// The domains that one peer may not ask about.
#[derive(Debug)]
pub(in crate::edge) struct Askable {
    closed: BTreeSet<Bytes>,
}

impl Callers {
    /// By the names for each domain.
    pub fn new(by_domain: &BTreeMap<String, SanPatterns>) -> Self {
        let owned =
            |(domain, names): (&String, &SanPatterns)| (Bytes::from(domain.clone()), names.clone());
        Self(by_domain.iter().map(owned).collect())
    }

    /// The domains that `peer` may ask about; `None`: all.
    pub(in crate::edge) fn askable(&self, peer: &Peer) -> Option<Arc<Askable>> {
        let fits = |names: &SanPatterns| peer.names.as_deref().is_some_and(|own| names.fit(own));
        let closed = self.0.iter().filter(|(_, names)| !fits(names));
        let closed: BTreeSet<Bytes> = closed.map(|(domain, _)| domain.clone()).collect();
        (!closed.is_empty()).then(|| Arc::new(Askable { closed }))
    }
}

impl Askable {
    /// True if the peer may ask about `domain`.
    pub(in crate::edge) fn has(&self, domain: &[u8]) -> bool {
        !self.closed.contains(domain)
    }
}
