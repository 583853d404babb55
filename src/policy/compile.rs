//! From files to a [`PolicySet`]: what makes sense, and every fault where something does not.

use std::sync::Arc;

use hashbrown::HashMap;
use sha2::{Digest as _, Sha256};

use self::names::Names;
use self::siblings::Siblings;
use super::cost::Cost;
use super::fault::{Faults, Warning};
use super::matcher::{Level, Node, Slot};
use super::options::Options;
use super::report::Report;
use super::rule::{How, PathEntry, Rule, RuleLimit, label};
use super::schema::{self, Descriptor, Signs};
use super::set::{Domain, PolicySet};
use super::source::Source;
use crate::yaml::{self, At, quote};

mod adaptive;
mod calendar;
mod holds;
mod lease;
mod limits;
mod names;
pub(crate) mod network;
mod siblings;
mod wait;

pub(crate) use self::limits::{LONGEST_NAME, fits_header};

/// A policy set and the warnings about it.
#[derive(Debug, Default)]
pub struct Compiled {
    /// The set.
    pub set: PolicySet,
    /// Warnings about what works but is probably not meant.
    pub warnings: Vec<Warning>,
    /// The domain of each source, same order.
    pub domains: Vec<Arc<str>>,
}

/// Compiles files into a set, or reports all their faults.
pub fn compile(sources: &[Source], options: &Options) -> Result<Compiled, Faults> {
    let mut report = Report::new(sources);
    let mut files = Vec::new();
    for (source, file) in sources.iter().zip(0..) {
        if let Some(draft) = &source.draft {
            files.push(schema::File::of(draft, file));
        } else if let Some(node) = yaml::parse(file, &source.text, report.notes()) {
            files.push(schema::File::read(&node, &mut report));
        }
    }
    let domain = |file: &schema::File| file.domain.as_ref().map(|(name, _)| Arc::clone(name));
    let of_each = files.iter().filter_map(domain).collect();
    let mut compiler =
        Compiler { options, report, rules: Vec::new(), path: Vec::new(), names: Names::default() };
    let domains = compiler.domains(files);
    adaptive::check_all(&compiler.rules, &mut compiler.report);
    let Compiler { report, rules, .. } = compiler;
    let warnings = report.finish()?;
    // Without faults every source has a domain.
    let set = PolicySet::new(domains, rules, version(sources));
    Ok(Compiled { set, warnings, domains: of_each })
}

/// The first digits of a hash over the contents of the files.
fn version(sources: &[Source]) -> String {
    let mut hash = Sha256::new();
    for source in sources {
        hash.update((source.text.len() as u64).to_be_bytes());
        hash.update(&source.text);
    }
    let mut digits = format!("{:x}", hash.finalize());
    digits.truncate(12);
    digits
}

struct Compiler<'a> {
    options: &'a Options,
    report: Report<'a>,
    rules: Vec<Arc<Rule>>,
    /// From the root to the current node, each with its number among the sensitive values of its
    /// key.
    path: Vec<(PathEntry, usize)>,
    /// Of the current domain.
    names: Names,
}

/// A level whose nodes are not all compiled yet.
struct OpenLevel {
    level: Level,
    siblings: Siblings,
    rest: std::vec::IntoIter<Descriptor>,
}

/// A node whose level below is not compiled yet.
struct OpenNode {
    key: Arc<str>,
    /// None: it has a fault, or a sibling takes its values.
    slot: Option<Slot>,
    rule: Option<Arc<Rule>>,
    sensitive: bool,
}

impl OpenLevel {
    fn new(descriptors: Vec<Descriptor>) -> Self {
        let rest = descriptors.into_iter();
        Self { level: Level::default(), siblings: Siblings::default(), rest }
    }

    fn close(&mut self, node: OpenNode, below: Level) {
        let OpenNode { key, slot, rule, sensitive } = node;
        if let Some(slot) = slot {
            self.level.insert(&key, slot, Node { rule, sensitive, below });
        }
    }
}

impl Compiler<'_> {
    fn domains(&mut self, files: Vec<schema::File>) -> Vec<Domain> {
        let mut order: Vec<(Arc<str>, Vec<Descriptor>, Signs)> = Vec::new();
        let mut known: HashMap<Arc<str>, (usize, At)> = HashMap::new();
        for file in files {
            // Without a name a file is still checked, as a domain of its own.
            let Some((name, at)) = file.domain else {
                order.push(("".into(), file.descriptors, file.signs));
                continue;
            };
            let (index, first) = *known.entry(Arc::clone(&name)).or_insert((order.len(), at));
            if index == order.len() {
                order.push((name, file.descriptors, file.signs));
                continue;
            }
            if !self.options.merge_domains {
                let hint = format!("first at {}", self.report.place(first));
                self.report.fault_with(at, format!("duplicate domain {}", quote(&name)), hint);
            }
            if let Some((_, descriptors, signs)) = order.get_mut(index) {
                descriptors.extend(file.descriptors);
                if file.signs != Signs::default() {
                    *signs = file.signs;
                }
            }
        }
        let domain = |(name, descriptors, signs)| self.domain(name, descriptors, signs);
        order.into_iter().map(domain).collect()
    }

    fn domain(&mut self, name: Arc<str>, descriptors: Vec<Descriptor>, signs: Signs) -> Domain {
        self.names = Names::default();
        let first = self.rules.len();
        let root = self.level(&name, descriptors);
        // After a fault names may be missing that are there.
        if !self.report.has_faults() {
            self.names.check(&mut self.report);
        }
        let rules = self.rules.get(first..).unwrap_or_default();
        let by_kind = |limit: &RuleLimit| matches!(limit.cost(), Cost::Weighted(_));
        let needs_signs = |limit: &RuleLimit| limit.holds() || by_kind(limit);
        let holds =
            |rule: &Arc<Rule>| rule.adaptive.is_some() || rule.limits.iter().any(needs_signs);
        let holds = rules.iter().any(holds);
        let signs = holds.then_some(signs);
        if let Some(signs) = &signs {
            holds::check_signs(signs, rules, &mut self.report);
        }
        Domain::new(name, root, signs)
    }

    /// The tree of `descriptors`. A loop and not a recursion: control planes may nest them
    /// thousands of levels deep.
    fn level(&mut self, domain: &Arc<str>, descriptors: Vec<Descriptor>) -> Level {
        let mut above: Vec<(OpenLevel, OpenNode)> = Vec::new();
        let mut current = OpenLevel::new(descriptors);
        loop {
            if let Some(descriptor) = current.rest.next() {
                let (node, below) = self.open(domain, descriptor, &mut current.siblings);
                above.push((current, node));
                current = OpenLevel::new(below);
                continue;
            }
            current.siblings.check(&mut self.report);
            let Some((mut parent, node)) = above.pop() else { return current.level };
            self.path.pop();
            parent.close(node, current.level);
            current = parent;
        }
    }

    /// Enters the node of `descriptor`, and returns it with the descriptors below it.
    fn open(
        &mut self,
        domain: &Arc<str>,
        mut descriptor: Descriptor,
        siblings: &mut Siblings,
    ) -> (OpenNode, Vec<Descriptor>) {
        // What has no place in the tree is still checked, with all below it.
        let slot = siblings.slot(&descriptor, &mut self.report);
        let entry = self.entry(&descriptor, slot.as_ref());
        let (key, sensitive) = (Arc::clone(&entry.key), entry.sensitive);
        let ordinal = siblings.ordinal(&entry);
        self.path.push((entry, ordinal));
        let rule = self.rule(domain, &descriptor);
        (OpenNode { key, slot, rule, sensitive }, std::mem::take(&mut descriptor.descriptors))
    }

    fn entry(&mut self, descriptor: &Descriptor, slot: Option<&Slot>) -> PathEntry {
        let how = match slot {
            Some(Slot::Exact(value)) => How::Exact(Arc::clone(value)),
            Some(Slot::Pattern(pattern)) => How::Pattern(Arc::clone(pattern.text())),
            Some(Slot::Any) | None => How::Any,
        };
        let share = descriptor.share_threshold.0.as_ref().filter(|given| given.value == Some(true));
        if let (Some(given), Some(Slot::Exact(_) | Slot::Any)) = (share, slot) {
            let value = descriptor.value.good().map_or("none".to_owned(), |value| quote(&value));
            let message = format!("share_threshold needs a value with \"*\", found {value}");
            // Others look for it in the key, too.
            if descriptor
                .key
                .as_ref()
                .and_then(|key| key.value.as_ref())
                .is_some_and(|k| k.contains('*'))
            {
                self.report.lenient_fault(given.key_at, message, None);
            } else {
                self.report.fault(given.key_at, message);
            }
        }
        PathEntry {
            key: descriptor.key.as_ref().and_then(|key| key.value.clone()).unwrap_or_default(),
            how,
            share: share.is_some() && matches!(slot, Some(Slot::Pattern(_))),
            sensitive: descriptor.sensitive.good() == Some(true),
            value_to_metric: descriptor.value_to_metric.good() == Some(true),
        }
    }

    fn rule(&mut self, domain: &Arc<str>, descriptor: &Descriptor) -> Option<Arc<Rule>> {
        let shadow = descriptor.shadow_mode.good() == Some(true);
        if !descriptor.has_limits {
            if let Some(given) = &descriptor.adaptive {
                let hint = "write it where the limit is".to_owned();
                self.report.fault_with(given.key_at, "adaptive without a limit", hint);
            }
            // Control planes set modes on all nodes that lead to a limit.
            if !self.report.is_generated(descriptor.at) {
                self.warn_of_idle_modes(descriptor);
            }
            return None;
        }
        self.names.add(&descriptor.limits, shadow);
        let defaults = self.options.defaults();
        let limits = limits::compile_all(&descriptor.limits, defaults, &mut self.report)?;
        let adaptive = descriptor.adaptive.as_ref();
        let adaptive = adaptive::compile(adaptive, &limits, &mut self.report).ok()?;
        let (path, ordinals): (Vec<_>, Vec<_>) = self.path.iter().cloned().unzip();
        let rule = Arc::new(Rule {
            index: self.rules.len() as u32,
            domain: Arc::clone(domain),
            label: label(&path, &ordinals),
            path,
            ordinals: ordinals.into(),
            limits,
            shadow,
            quota: descriptor.quota_mode.good() == Some(true),
            detailed_metric: descriptor.detailed_metric.good() == Some(true),
            metadata: descriptor.metadata.clone().map(Arc::new),
            adaptive,
            place: self.report.place(descriptor.at),
        });
        self.rules.push(Arc::clone(&rule));
        Some(rule)
    }

    fn warn_of_idle_modes(&mut self, descriptor: &Descriptor) {
        let modes =
            [("shadow_mode", &descriptor.shadow_mode), ("quota_mode", &descriptor.quota_mode)];
        for (name, mode) in modes {
            if let Some(given) = mode.0.as_ref().filter(|given| given.value == Some(true)) {
                let message = format!("{name} does nothing on a descriptor without limits");
                self.report.warn(given.key_at, message, "set it where the limit is");
            }
        }
    }
}
