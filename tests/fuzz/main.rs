//! The fuzz targets as tests: the committed corpora as they are, mutations of them, and arbitrary
//! bytes. `cargo fuzz` runs the same functions for longer; CONTRIBUTING.md says how.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test")]
#![allow(unreachable_pub, missing_docs, missing_debug_implementations, reason = "a test")]

mod corpus;
mod mutate;
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};

use proptest::test_runner::{Config, TestRunner};

use self::targets::{
    decision, framing, http2, json, page_token, policy, records, replies, settings, state, timeout,
};

/// Declares a test for each target, with its number of mutations.
macro_rules! targets {
    ($($target:ident: $cases:literal,)+) => {
        /// The names of the targets.
        const TARGETS: &[&str] = &[$(stringify!($target)),+];

        $(#[test]
        fn $target() {
            check(stringify!($target), $target::run, $cases);
        })+
    };
}

// Each takes one to three seconds without optimization.
targets! {
    decision: 20_000,
    framing: 20_000,
    http2: 1_500,
    json: 5_000,
    page_token: 20_000,
    policy: 5_000,
    records: 20_000,
    replies: 5_000,
    settings: 1_000,
    state: 5_000,
    timeout: 20_000,
}

/// Gives `run` each input of the corpus of `target`, then `cases` others.
fn check(target: &str, run: fn(&[u8]), cases: u32) {
    let corpus = corpus::of(target);
    for (path, input) in &corpus {
        let passed = catch_unwind(AssertUnwindSafe(|| run(input)));
        assert!(passed.is_ok(), "{target} fails on {}", path.display());
    }
    let inputs = corpus.into_iter().map(|(_, input)| input).collect();
    // A finding becomes a file of the corpus.
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let result = TestRunner::new(config).run(&mutate::inputs(inputs), |input| {
        run(&input.0);
        Ok(())
    });
    if let Err(failure) = result {
        panic!("{target}: {failure}");
    }
}

#[test]
fn targets_are_those_of_cargo_fuzz_and_have_small_corpora() {
    assert_eq!(corpus::programs(), TARGETS);
    assert_eq!(corpus::directories(), TARGETS);
    for target in TARGETS {
        let corpus = corpus::of(target);
        assert!((1..=30).contains(&corpus.len()), "{target} has {} inputs", corpus.len());
        for (path, input) in corpus {
            assert!(input.len() <= 16 << 10, "{} is large", path.display());
        }
    }
}
