//! `tollgate explain`: the rule that a descriptor meets, from policy files alone.
//!
//! No server and no store: clients, overrides and modes set at run time are not known here, see
//! `tollgate admin explain`.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use tollgate::domain::{Algorithm, Charge, Limit};
use tollgate::limiter::key::{self, KeyMaker, SensitiveHasher, Sharing, Stem};
use tollgate::limiter::request;
use tollgate::policy::{Allowance, Compiled, Domain, LimitKind, PolicySet, Rule, RuleLimit};

use super::descriptor::{self, Entry};
use super::exit::{Failure, Outcome};
use super::policies::{self, PolicyArgs};

/// The default of `redis.key_prefix`.
const KEY_PREFIX: &str = "tollgate:";

/// Stands for a value that must not be shown.
const HIDDEN: &str = "<sensitive>";

/// `tollgate explain`.
#[derive(Args, Debug)]
pub(crate) struct ExplainArgs {
    /// Policy file, or directory of policy files; - reads standard input
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// Domain of the request
    domain: String,
    /// Entries of the descriptor, in order
    #[arg(required = true, value_name = "KEY=VALUE")]
    entries: Vec<Entry>,
    /// Settings that the policies depend on.
    #[command(flatten)]
    policy: PolicyArgs,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

/// Prints the rule of a descriptor, its limits and their counters.
pub(crate) fn run(args: &ExplainArgs) -> Outcome {
    let files = policies::read(std::slice::from_ref(&args.path), args.policy.is_lenient())?;
    let Compiled { set, .. } = files
        .compile(&args.policy.options())
        .map_err(|faults| Failure::Failed(format!("the policies have faults\n{faults}")))?;
    let Some(domain) = set.domain(args.domain.as_bytes()) else {
        return Err(Failure::Failed(unknown_domain(&set, &args.domain)));
    };
    let explained = Explained::new(domain, &args.entries);
    if args.json {
        println!("{}", explained.json());
    } else {
        print!("{}", explained.text());
    }
    Ok(())
}

fn unknown_domain(set: &PolicySet, name: &str) -> String {
    let names: Vec<_> = set.domains().iter().map(|domain| domain.name().to_string()).collect();
    format!(
        "no policy of domain {name:?}, so no limit; the policies are of {}",
        if names.is_empty() { "no domain".to_owned() } else { names.join(", ") }
    )
}

struct Explained<'a> {
    domain: &'a Domain,
    entries: &'a [Entry],
    rule: Option<&'a Rule>,
}

impl<'a> Explained<'a> {
    fn new(domain: &'a Domain, entries: &'a [Entry]) -> Self {
        Self { domain, entries, rule: domain.find(pairs(entries)).map(AsRef::as_ref) }
    }

    fn text(&self) -> String {
        let mut lines = vec![format!("{} {}", self.domain.name(), descriptor::text(&self.shown()))];
        let mut line = |name: &str, value: &str| lines.push(format!("{name:<9} {value}"));
        match self.rule {
            None => line("no limit", &self.why_none()),
            Some(rule) => {
                line("rule", &format!("{} at {}", rule.label, rule.place));
                for mode in modes(rule) {
                    line("mode", mode);
                }
                for limit in &rule.limits {
                    line("limit", &limit_text(limit));
                    if let Some(key) = self.key(rule, limit) {
                        line("counter", &key);
                    }
                }
            }
        }
        lines.join("\n") + "\n"
    }

    fn json(&self) -> Value {
        let limits = self.rule.iter().flat_map(|rule| {
            rule.limits.iter().map(|limit| {
                json!({
                    "limit": Allowance::from(limit).to_string(),
                    "text": limit_text(limit),
                    "name": limit.name,
                    "counter": self.key(rule, limit),
                })
            })
        });
        let limits: Vec<_> = limits.collect();
        json!({
            "domain": &**self.domain.name(),
            "descriptor": self.shown().iter().map(ToString::to_string).collect::<Vec<_>>(),
            "rule": self.rule.map(|rule| &rule.label),
            "place": self.rule.map(|rule| rule.place.to_string()),
            "shadow": self.rule.map(|rule| rule.shadow),
            "quota": self.rule.map(|rule| rule.quota),
            "limits": limits,
            "reason": self.rule.is_none().then(|| self.why_none()),
        })
    }

    /// The entries without sensitive values.
    fn shown(&self) -> Vec<Entry> {
        let sensitive = self.domain.sensitive(pairs(self.entries)).chain(std::iter::repeat(false));
        let shown = |(entry, sensitive): (&Entry, bool)| {
            let value = if sensitive { HIDDEN.to_owned() } else { entry.value.clone() };
            Entry { key: entry.key.clone(), value }
        };
        self.entries.iter().zip(sensitive).map(shown).collect()
    }

    /// The name of a counter in the store, as the server makes it; none: nothing is counted.
    fn key(&self, rule: &Rule, limit: &RuleLimit) -> Option<String> {
        let LimitKind::Counted { limit, .. } = &limit.kind else { return None };
        let hasher = SensitiveHasher::new(b"");
        let entries: Vec<request::Entry<'_>> = self.entries.iter().map(Into::into).collect();
        let stem = Stem::new(self.domain.name().as_bytes(), &rule.path);
        let keys = KeyMaker::new(KEY_PREFIX, hasher.clone());
        let key = keys.key(&stem, &entries, Sharing::Rule, &key::tail(limit));
        let mut key = String::from_utf8_lossy(key.as_bytes()).into_owned();
        // The server hashes with a key of its own.
        for (entry, _) in self.entries.iter().zip(&rule.path).filter(|(_, path)| path.sensitive) {
            key = key.replace(&hasher.hash(entry.value.as_bytes()), HIDDEN);
        }
        Some(key)
    }

    /// The reason why no rule matches.
    fn why_none(&self) -> String {
        let shown = self.shown();
        let leads = |count: &usize| {
            let prefix = || pairs(self.entries.get(..*count).unwrap_or_default());
            self.domain.find(prefix()).is_some() || self.domain.goes_on(prefix())
        };
        let reached = (1..=self.entries.len()).rev().find(leads).unwrap_or(0);
        let prefix = shown.get(..reached).unwrap_or_default();
        match (shown.get(reached), reached) {
            (None, _) => "the policy has limits only for longer descriptors".to_owned(),
            (Some(next), 0) => format!("no rule begins with {next}"),
            (Some(next), _) => {
                let prefix = descriptor::text(prefix);
                format!("no rule has {next} after {prefix}; limits are not inherited")
            }
        }
    }
}

fn pairs(entries: &[Entry]) -> impl Iterator<Item = (&[u8], &[u8])> {
    entries.iter().map(|entry| (entry.key.as_bytes(), entry.value.as_bytes()))
}

fn modes(rule: &Rule) -> impl Iterator<Item = &'static str> {
    let shadow = rule.shadow.then_some("shadow: reports, never denies");
    let quota = rule.quota.then_some("quota: denies when all quota descriptors of a request fail");
    shadow.into_iter().chain(quota)
}

fn limit_text(limit: &RuleLimit) -> String {
    let mut text = Allowance::from(limit).to_string();
    if let LimitKind::Counted { limit: counted, .. } = &limit.kind {
        text.push_str(", ");
        text.push_str(&method(counted));
    }
    if let Some(name) = &limit.name {
        text.push_str(", name ");
        text.push_str(name);
    }
    if !limit.replaces.is_empty() {
        text.push_str(", replaces ");
        text.push_str(&limit.replaces.join(", "));
    }
    text
}

fn method(limit: &Limit) -> String {
    let algorithm = match limit.algorithm() {
        Algorithm::TokenBucket { burst } => format!("token_bucket, burst {burst}"),
        Algorithm::SlidingWindow { slots } => format!("sliding_window, {slots} slots"),
        Algorithm::FixedWindow => "fixed_window".to_owned(),
        Algorithm::Concurrency => format!("concurrency, ttl {:?}", limit.period()),
    };
    match limit.charge() {
        Charge::Admitted => algorithm,
        Charge::Always { .. } => algorithm + ", charge always",
        Charge::Settled { .. } => algorithm + ", charge settled",
        Charge::Held { .. } => algorithm + ", held",
    }
}
