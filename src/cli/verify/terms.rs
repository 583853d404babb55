//! The promises to check: one limit for every key, or those of policies.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::RangedU64ValueParser;
use tollgate::limiter::key::{self, KeyMaker, SensitiveHasher, Sharing, Stem};
use tollgate::limiter::request::Entry;
use tollgate::policy::{Compiled, Cost, LimitKind, PolicySet, Rule};
use tollgate::verify::{Descriptor, Promise, Traces};

use crate::cli::exit::Failure;
use crate::cli::policies::{self, PolicyArgs};

/// The promises, as typed.
#[derive(Args, Debug)]
pub(crate) struct TermsArgs {
    /// Limit of every key, such as `sliding_window 50/s`, `token_bucket 50/s burst 100` or
    /// `fixed_window 3/day`
    #[arg(long, value_name = "LIMIT", conflicts_with = "policies")]
    pub(crate) limit: Option<Promise>,
    /// Policy file, or directory of policy files, with the limits of the keys
    #[arg(long, value_name = "PATH")]
    pub(crate) policies: Option<PathBuf>,
    /// Settings that the policies depend on.
    #[command(flatten)]
    pub(crate) policy: PolicyArgs,
    /// Multiple of the limits that may be admitted; while the store is away, that is 2
    #[arg(long, value_name = "N", default_value_t = 1,
        value_parser = RangedU64ValueParser::<u32>::new().range(1..=u64::from(Promise::MAX_BOUND)))]
    pub(crate) bound: u32,
    /// Leave out calls that were decided without the store
    #[arg(long)]
    pub(crate) ignore_degraded: bool,
    /// Largest difference of clocks: between callers, and for fixed windows to the store
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration)]
    pub(crate) clock_error: Duration,
    /// Number of counters to show, worst first
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) show: usize,
}

/// The promises.
#[derive(Debug)]
pub(crate) enum Terms {
    /// One for every key.
    Limit(Promise),
    /// Those of the limits of these policies, times `bound`.
    Policies {
        /// The policies.
        set: PolicySet,
        /// The multiple of the limits.
        bound: u32,
    },
}

/// The promises of one key.
#[derive(Debug)]
pub(super) enum Judged {
    /// The counters that its hits count in, each with a promise.
    Counters(Vec<(String, Promise)>),
    /// None, for this reason.
    Not(&'static str),
}

impl TermsArgs {
    /// Reads the promises.
    ///
    /// # Errors
    /// Neither a limit nor policies, or policies with faults.
    pub(crate) fn read(&self) -> Result<Terms, Failure> {
        let bound = self.bound;
        if let Some(limit) = self.limit {
            return Ok(Terms::Limit(limit.times(bound)));
        }
        let Some(path) = &self.policies else {
            let what =
                "no promise to check: write --limit \"sliding_window 50/s\" or --policies DIR";
            return Err(Failure::Line(what.to_owned()));
        };
        let compiled = policies::read(std::slice::from_ref(path), self.policy.is_lenient())?
            .compile(&self.policy.options());
        let Compiled { set, .. } = compiled
            .map_err(|faults| Failure::Line(format!("the policies have faults\n{faults}")))?;
        Ok(Terms::Policies { set, bound })
    }

    /// True if there is a limit or policies.
    pub(crate) const fn is_given(&self) -> bool {
        self.limit.is_some() || self.policies.is_some()
    }

    /// Traces without calls, to which calls are added as these arguments say.
    pub(crate) fn traces(&self) -> Traces {
        Traces::new(self.clock_error, self.ignore_degraded)
    }
}

impl Terms {
    /// The promises of a key.
    ///
    /// # Errors
    /// Says why the policies have no limit for it.
    pub(super) fn of(&self, key: &str) -> Result<Judged, String> {
        let (set, bound) = match self {
            Self::Limit(promise) => {
                return Ok(Judged::Counters(vec![(key.to_owned(), *promise)]));
            }
            Self::Policies { set, bound } => (set, *bound),
        };
        let descriptor = Descriptor::parse(key).ok_or_else(|| {
            format!(
                "key {key:?} is no descriptor: with --policies write DOMAIN|KEY=VALUE|KEY=VALUE"
            )
        })?;
        let domain = set.domain(&descriptor.domain).ok_or_else(|| {
            let names: Vec<_> = set.domains().iter().map(|it| it.name().to_string()).collect();
            format!(
                "key {key:?}: no policy of its domain; the policies are of {}",
                names.join(", ")
            )
        })?;
        let rule = domain
            .find(descriptor.pairs())
            .ok_or_else(|| format!("key {key:?}: no rule of its domain matches it"))?;
        if rule.shadow {
            return Ok(Judged::Not("in shadow mode"));
        }
        Ok(counters(&descriptor, rule, bound))
    }
}

fn counters(descriptor: &Descriptor, rule: &Rule, bound: u32) -> Judged {
    let keys = KeyMaker::new("", SensitiveHasher::new(b""));
    let entries: Vec<Entry<'_>> =
        descriptor.pairs().map(|(key, value)| Entry { key, value }).collect();
    let counted = rule.limits.iter().filter_map(|limit| match &limit.kind {
        LimitKind::Unlimited => None,
        LimitKind::Counted { limit, .. } => Some(limit),
    });
    let stem = Stem::new(&descriptor.domain, &rule.path);
    let counter = |limit| {
        let name = keys.key(&stem, &entries, Sharing::Rule, &key::tail(limit));
        let name = String::from_utf8_lossy(name.as_bytes()).into_owned();
        (name, Promise::new(*limit).times(bound))
    };
    if counted.clone().any(|limit| limit.windows().is_some()) {
        return Judged::Not("of calendar windows");
    }
    // A trace has the hits of a call, and neither their kinds nor what a limit makes of them.
    if rule.limits.iter().any(|limit| *limit.cost() != Cost::Hits) {
        return Judged::Not("of limits with a cost of their own");
    }
    let counters: Vec<_> = counted.map(counter).collect();
    if counters.is_empty() { Judged::Not("unlimited") } else { Judged::Counters(counters) }
}
