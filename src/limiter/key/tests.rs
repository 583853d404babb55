//! Different descriptors have different keys, and keys are readable, bounded and the same
//! everywhere.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::domain::Charge;

fn maker() -> KeyMaker {
    KeyMaker::new("tollgate:", SensitiveHasher::new(b"secret"))
}

fn entry<'m>(key: &'m [u8], value: &'m [u8]) -> Entry<'m> {
    Entry { key, value }
}

fn path(how: How, share: bool, sensitive: bool) -> PathEntry {
    PathEntry { key: Arc::from("k"), how, share, sensitive, value_to_metric: false }
}

fn text(domain: &[u8], entries: &[Entry], path: &[PathEntry]) -> String {
    let stem = Stem::new(domain, path);
    let key = maker().key(&stem, entries, Sharing::Rule, b":fixed_window:60s");
    String::from_utf8(key.as_bytes().to_vec()).unwrap()
}

#[test]
fn key_reads_like_the_descriptor() {
    let entries = [entry(b"remote_address", b"10.0.0.7"), entry(b"path", b"/api/v1")];
    assert_eq!(
        text(b"edge", &entries, &[]),
        "tollgate:1:{edge|remote_address=10.0.0.7|path=/api/v1}:fixed_window:60s"
    );
}

#[test]
fn separators_in_values_cannot_make_two_descriptors_one() {
    let different: [(&[u8], Vec<Entry>); 10] = [
        (b"d", vec![entry(b"a", b"b_c")]),
        (b"d", vec![entry(b"a_b", b"c")]),
        (b"d", vec![entry(b"a", b"b|c=d")]),
        (b"d", vec![entry(b"a", b"b"), entry(b"c", b"d")]),
        (b"d", vec![entry(b"a", b"b%7Cc")]),
        (b"d", vec![entry(b"a", b"b}c")]),
        (b"d|a=b", vec![entry(b"c", b"d")]),
        (b"d", vec![entry(b"a", b"")]),
        (b"d", vec![entry(b"a", b"\xff")]),
        (b"d", vec![entry(b"a", b"%FF")]),
    ];
    let keys: std::collections::HashSet<String> =
        different.iter().map(|(domain, entries)| text(domain, entries, &[])).collect();
    assert_eq!(keys.len(), different.len(), "{keys:#?}");
}

#[test]
fn shared_pattern_is_one_counter_and_no_value_can_pretend_to_be_it() {
    let shared = [path(How::Pattern("f/*".into()), true, false)];
    let one = text(b"d", &[entry(b"k", b"f/1")], &shared);
    assert_eq!(one, text(b"d", &[entry(b"k", b"f/2")], &shared));
    assert_ne!(one, text(b"d", &[entry(b"k", b"f/*")], &[]));
    assert_ne!(one, text(b"d", &[entry(b"k~f/*", b"")], &[]));
    let own = maker().key(&Stem::new(b"d", &shared), &[entry(b"k", b"f/1")], Sharing::Own, b"");
    assert_eq!(own.as_bytes(), b"tollgate:1:{d|k=f/1}");
}

#[test]
fn sensitive_value_is_hashed_with_the_secret() {
    let hidden = [path(How::Any, false, true)];
    let key = text(b"d", &[entry(b"k", b"s3cret")], &hidden);
    assert!(!key.contains("s3cret"), "{key}");
    assert_eq!(key, text(b"d", &[entry(b"k", b"s3cret")], &hidden));
    assert_ne!(key, text(b"d", &[entry(b"k", b"other")], &hidden));
    let other = SensitiveHasher::new(b"another secret");
    assert_ne!(other.hash(b"s3cret"), SensitiveHasher::new(b"secret").hash(b"s3cret"));
    // Also of a client under a pattern whose values share a counter otherwise, and of one value.
    for how in [How::Pattern("s*".into()), How::Exact("s3cret".into())] {
        let hidden = [path(how, true, true)];
        let stem = Stem::new(b"d", &hidden);
        let own = maker().key(&stem, &[entry(b"k", b"s3cret")], Sharing::Own, b":fixed_window:60s");
        assert_eq!(own.as_bytes(), key.as_bytes());
    }
}

/// Counters of sensitive values live on under these hashes, and replicas of any version share them.
#[test]
fn hashes_are_hmac_sha_256_under_the_hash_of_the_secret() {
    for (secret, value, hash) in [
        (&b""[..], &b""[..], "bfe4527091e7291c5b9a9359c579a973"),
        (b"", b"hunter2", "78248c2f36be298dade6cf64e37dfb01"),
        (b"a secret", b"", "6add8a26eb47045f17ade4c5f4085ec7"),
        (b"a secret", b"hunter2", "3e1691180f3a19b6afabb6f715711b4d"),
    ] {
        assert_eq!(SensitiveHasher::new(secret).hash(value), hash);
    }
}

#[test]
fn long_keys_are_cut_and_still_differ() {
    let long = |last: u8| {
        let mut value = vec![b'x'; 8_192];
        value.push(last);
        text(b"d", &[Entry { key: b"k", value: &value }], &[])
    };
    let (a, b) = (long(b'a'), long(b'b'));
    assert!(a.len() < 400, "{}", a.len());
    assert_ne!(a, b);
}

#[test]
fn tail_names_algorithm_window_and_slots_but_never_the_number() {
    let limit = |requests, seconds, algorithm| {
        Limit::new(requests, Duration::from_secs(seconds), algorithm, Charge::Admitted).unwrap()
    };
    let sliding = Algorithm::SlidingWindow { slots: 10 };
    let limits = [
        limit(5, 3_600, sliding),
        limit(9, 3_600, sliding),
        limit(5, 60, sliding),
        limit(5, 60, Algorithm::SlidingWindow { slots: 20 }),
        limit(5, 60, Algorithm::TokenBucket { burst: 1 }),
        limit(5, 60, Algorithm::TokenBucket { burst: 2 }),
        limit(5, 60, Algorithm::FixedWindow),
    ];
    for (one, other) in limits.iter().flat_map(|one| limits.iter().map(move |other| (one, other))) {
        assert_eq!(is_alike(one, other), tail(one) == tail(other), "{one:?} {other:?}");
    }
    assert_eq!(&*tail(&limit(5, 3_600, sliding)), b":sliding_window:3600s:10");
    let fixed = Algorithm::FixedWindow;
    assert_eq!(tail(&limit(5, 315_360_000, fixed)), b":fixed_window:315360000s");
    assert_eq!(tail(&limit(5, 1, fixed)), b":fixed_window:1s");
    assert_eq!(tail(&limit(5, 3_600, sliding)), tail(&limit(9, 3_600, sliding)));
    assert_ne!(tail(&limit(5, 3_600, sliding)), tail(&limit(5, 86_400, sliding)));
    assert_eq!(
        tail(&limit(5, 1, Algorithm::TokenBucket { burst: 5 })),
        tail(&limit(5, 1, Algorithm::TokenBucket { burst: 9 }))
    );
}

proptest! {
    /// Runs that are copied whole are what byte by byte would give.
    #[test]
    fn bytes_that_are_not_plain_are_escaped_one_by_one(bytes: Vec<u8>) {
        let each = |byte: &u8| {
            if byte.is_ascii_graphic() && !b"%|=~#{}@".contains(byte) {
                char::from(*byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        };
        let mut key = b"key".to_vec();
        escape_into(&mut key, &bytes);
        let expected: String = bytes.iter().map(each).collect();
        prop_assert_eq!(String::from_utf8(key).unwrap(), format!("key{expected}"));
    }
}
