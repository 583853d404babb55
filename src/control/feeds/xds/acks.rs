//! The answers to responses: which version is accepted, which content is refused, and when the
//! control plane is told. Pure: no stream and no clock.
//!
//! Source: the xDS transport protocol, state of the world. A response is answered with its nonce
//! and the version accepted last on this stream; an error makes that a NACK.
//!
//! Some control planes answer a NACK at once with the content that it refuses. So the NACK of
//! content that was refused before is delayed, longer each time.

use std::time::Duration;

use sha2::{Digest as _, Sha256};

use prost_types::Any;

/// The delay of the second NACK of the same content; doubled for each that follows.
const FIRST_DELAY: Duration = Duration::from_secs(1);

/// The longest delay of a NACK.
const MAX_DELAY: Duration = Duration::from_secs(30);

/// A hash over resources; their order counts for nothing.
pub(super) type ContentHash = [u8; 32];

/// The hash of `resources`.
pub(super) fn hash(resources: &[Any]) -> ContentHash {
    let mut sorted: Vec<_> = resources.iter().map(|r| (r.type_url.as_bytes(), &*r.value)).collect();
    sorted.sort_unstable();
    let mut hash = Sha256::new();
    for part in sorted.into_iter().flat_map(|(type_url, value)| [type_url, value]) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// A request that answers a response; the first of a stream answers none and is empty.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Answer {
    pub(super) version: String,
    pub(super) nonce: String,
    /// The reason of a NACK.
    pub(super) error: Option<String>,
}

/// The state of the content of a response.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Known {
    /// It is as it was when it was last put in force.
    InForce,
    /// It was refused for this reason; a NACK is due after the delay.
    Refused { error: String, delay: Duration },
    /// Nothing: it is to be compiled.
    New,
}

/// The state of the subscription.
#[derive(Debug, Default)]
pub(super) struct Acks {
    /// Accepted last on this stream.
    version: String,
    in_force: Option<ContentHash>,
    /// Kept across streams: a new one would otherwise begin the loop of NACKs again.
    refused: Option<Refused>,
}

#[derive(Debug)]
struct Refused {
    content: ContentHash,
    error: String,
    delay: Duration,
}

impl Acks {
    /// The first request of a new stream. It has no version and no nonce: both count anew where the
    /// control plane was restarted, and an old version may be equal to a new one.
    pub(super) fn open(&mut self) -> Answer {
        self.version.clear();
        Answer::default()
    }

    /// The state of `content`.
    pub(super) fn look_up(&mut self, content: &ContentHash) -> Known {
        if self.in_force.as_ref() == Some(content) {
            return Known::InForce;
        }
        match &mut self.refused {
            Some(refused) if refused.content == *content => {
                let (error, delay) = (refused.error.clone(), refused.delay);
                refused.delay = (delay * 2).min(MAX_DELAY);
                Known::Refused { error, delay }
            }
            _ => Known::New,
        }
    }

    /// The ACK of a response, whose content is in force.
    pub(super) fn accept(
        &mut self,
        content: ContentHash,
        version: String,
        nonce: String,
    ) -> Answer {
        self.in_force = Some(content);
        self.refused = None;
        self.version.clone_from(&version);
        Answer { version, nonce, error: None }
    }

    /// The NACK of a response.
    pub(super) fn refuse(&mut self, content: ContentHash, nonce: String, error: String) -> Answer {
        if self.refused.as_ref().is_none_or(|refused| refused.content != content) {
            let error = error.clone();
            self.refused = Some(Refused { content, error, delay: FIRST_DELAY });
        }
        Answer { version: self.version.clone(), nonce, error: Some(error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ContentHash = [1; 32];
    const B: ContentHash = [2; 32];

    fn any(value: &[u8]) -> Any {
        Any { type_url: "t".to_owned(), value: value.to_vec() }
    }

    fn answer(version: &str, nonce: &str, error: Option<&str>) -> Answer {
        let error = error.map(ToOwned::to_owned);
        Answer { version: version.to_owned(), nonce: nonce.to_owned(), error }
    }

    #[test]
    fn hash_is_that_of_the_content_in_any_order() {
        let (ab, ba) = ([any(b"a"), any(b"b")], [any(b"b"), any(b"a")]);
        assert_eq!(hash(&ab), hash(&ba));
        assert_ne!(hash(&ab), hash(&[any(b"ab")]));
        assert_ne!(hash(&ab), hash(&[any(b"a")]));
        assert_ne!(hash(&[]), hash(&[any(b"")]));
    }

    #[test]
    fn nack_has_the_version_accepted_before_on_this_stream() {
        let mut acks = Acks::default();
        assert_eq!(acks.open(), answer("", "", None));
        let refused = acks.refuse(A, "n1".to_owned(), "bad".to_owned());
        assert_eq!(refused, answer("", "n1", Some("bad")));
        let accepted = acks.accept(B, "7".to_owned(), "n2".to_owned());
        assert_eq!(accepted, answer("7", "n2", None));
        let refused = acks.refuse(A, "n3".to_owned(), "bad".to_owned());
        assert_eq!(refused, answer("7", "n3", Some("bad")));

        assert_eq!(acks.open(), answer("", "", None));
        let refused = acks.refuse(A, "1".to_owned(), "bad".to_owned());
        assert_eq!(refused, answer("", "1", Some("bad")), "nothing of an earlier stream");
    }

    #[test]
    fn content_in_force_is_known_on_every_stream() {
        let mut acks = Acks::default();
        acks.accept(A, String::new(), "n".to_owned());
        acks.open();
        assert_eq!(acks.look_up(&A), Known::InForce);
        assert_eq!(acks.look_up(&B), Known::New);
    }

    #[test]
    fn nacks_of_the_same_content_wait_longer_and_longer() {
        let mut acks = Acks::default();
        assert_eq!(acks.look_up(&A), Known::New);
        acks.refuse(A, String::new(), "bad".to_owned());
        let mut delays = Vec::new();
        for _ in 0..7 {
            let Known::Refused { error, delay } = acks.look_up(&A) else { panic!("known") };
            assert_eq!(error, "bad");
            delays.push(delay.as_secs());
            acks.refuse(A, String::new(), error);
            acks.open();
        }
        assert_eq!(delays, [1, 2, 4, 8, 16, 30, 30]);

        acks.accept(B, String::new(), String::new());
        assert_eq!(acks.look_up(&A), Known::New, "looked at again after something good");
    }
}
