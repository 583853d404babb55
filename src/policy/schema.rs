//! The shape of a policy file: which keys there are and what type each has.
//!
//! ```yaml
//! domain: shop                        # required
//! signs: {hold: hold, kind: kind, report: report}  # keys that are not part of a counter
//! descriptors:
//!   - key: api_key                    # required
//!     value: "gold-*"                 # left out: any value; * stands for any text
//!     sensitive: true                 # never show or store the values as they are
//!     share_threshold: true           # all values of the pattern share one counter
//!     value_to_metric: true           # metrics carry the value
//!     detailed_metric: true           # metrics carry all values of the descriptor
//!     shadow_mode: true               # decide and report, never deny
//!     quota_mode: true                # deny only when all quota descriptors fail
//!     metadata: {tier: gold}          # what the answer says of this rule
//!     adaptive:                       # turned down while the upstream is unwell
//!       target: {p95: 300ms, errors: 5%}
//!       min: 10%                      # of the limits
//!       max: 100%
//!       drain: 3s                     # the time in which a queue is to be gone
//!       shadow: false                 # true: show, do not turn
//!     rate_limit:                     # or rate_limits: [{..}, {..}]
//!       unit: minute                  # second, minute, hour, day, week, month, year
//!       unit_multiplier: 5
//!       requests_per_unit: 100
//!       unlimited: false              # true: count nothing
//!       name: gold
//!       replaces: [{name: basic}]
//!       algorithm: token_bucket       # sliding_window, token_bucket, fixed_window, concurrency
//!       burst: 200                    # of a token bucket
//!       slots: 10                     # of a sliding window
//!       charge: always                # admitted, always
//!       max_debt: 1000                # of a token bucket that always charges
//!       max_wait: 2s                  # of a token bucket: hits that it has soon pass and wait
//!       on_store_failure: deny        # allow, deny
//!       cost: 1                       # hits of a request; left out: those that it asks for
//!       # or {input: 1, output: 4, cached: 1/10}: by the kind of what it asks for
//!       hold:                         # hits are an estimate, settled by the cost
//!         ttl: 10m                    # the longest that a request takes
//!         estimate: {default: 500, min: 1, max: 8000}
//!         # or {default: learned, percentile: 95, max: 8000}: by what requests have cost
//!         max_share: 25%              # of the capacity, at most
//!         on_unknown: keep            # keep, release, or a number of hits
//!         unnamed: false              # true: without a handle, beside charge: settled
//!       max: 10                       # of concurrency: at a time
//!       ttl: 60s                      # of concurrency: the longest that a request takes
//!       lease:                        # of a token bucket: replicas hold tokens
//!         max_share: 0.1              # at most this share of the bucket together
//!         ttl: 50ms                   # and no longer than this
//!     descriptors: []                 # what the next entry may be
//! ```
//!
//! `compile` checks which values make sense together.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::cost::Cost;
use super::report::Report;
use super::rule::{MAX_METADATA_BYTES, MAX_METADATA_LEVELS};
use super::words::{ChargeName, MethodName, OnStoreFailure, WeekdayName};
use crate::domain::{SATURATION, Unit};
use crate::yaml::{At, Data, Entry, Node, to_object};

mod adaptive;
mod drafts;
mod fields;
mod holds;
mod signs;

pub(super) use self::adaptive::Adaptive;
use self::adaptive::{ADAPTIVE, TARGET};
pub(super) use self::fields::{Field, Fields, Given, Kind};
pub use self::holds::OnUnknown;
pub(super) use self::holds::{DefaultEstimate, Hold};
use self::holds::{ESTIMATE, HOLD};
use self::signs::SIGNS;
pub use self::signs::Signs;

const FILE: Kind = Kind {
    name: "a policy file",
    keys: &["domain", "descriptors", "signs"],
    elsewhere: &[(DESCRIPTOR_KEYS, "to an item of \"descriptors\"")],
};

const DESCRIPTOR: Kind = Kind {
    name: "a descriptor",
    keys: DESCRIPTOR_KEYS,
    elsewhere: &[(LIMIT_KEYS, "inside \"rate_limit\""), (&["domain"], "at the top of the file")],
};

const LIMIT: Kind = Kind {
    name: "a limit",
    keys: LIMIT_KEYS,
    elsewhere: &[
        (DESCRIPTOR_KEYS, "to the descriptor, beside \"rate_limit\""),
        (&["max_share"], "inside \"lease\" or \"hold\""),
        (&["estimate", "on_unknown"], "inside \"hold\""),
        (&["zone", "anchor_day", "weekday"], "inside \"calendar\""),
    ],
};

const REPLACES: Kind = Kind { name: "an entry of replaces", keys: &["name"], elsewhere: &[] };

const LEASE: Kind = Kind { name: "a lease", keys: &["max_share", "ttl"], elsewhere: &[] };

const CALENDAR: Kind =
    Kind { name: "a calendar", keys: &["unit", "zone", "anchor_day", "weekday"], elsewhere: &[] };

/// The name of each kind of mapping in a policy file, and the keys it may have.
pub const KEYS: [(&str, &[&str]); 11] = [
    (FILE.name, FILE.keys),
    (DESCRIPTOR.name, DESCRIPTOR.keys),
    (LIMIT.name, LIMIT.keys),
    (REPLACES.name, REPLACES.keys),
    (LEASE.name, LEASE.keys),
    (CALENDAR.name, CALENDAR.keys),
    (SIGNS.name, SIGNS.keys),
    (HOLD.name, HOLD.keys),
    (ESTIMATE.name, ESTIMATE.keys),
    (ADAPTIVE.name, ADAPTIVE.keys),
    (TARGET.name, TARGET.keys),
];

const DESCRIPTOR_KEYS: &[&str] = &[
    "key",
    "value",
    "rate_limit",
    "rate_limits",
    "shadow_mode",
    "quota_mode",
    "detailed_metric",
    "value_to_metric",
    "share_threshold",
    "metadata",
    "sensitive",
    "adaptive",
    "descriptors",
];

const LIMIT_KEYS: &[&str] = &[
    "unit",
    "unit_multiplier",
    "requests_per_unit",
    "unlimited",
    "name",
    "replaces",
    "algorithm",
    "burst",
    "slots",
    "charge",
    "max_debt",
    "max_wait",
    "on_store_failure",
    "lease",
    "calendar",
    "max",
    "ttl",
    "hold",
    "cost",
];

/// A file.
pub(super) struct File {
    /// Never empty.
    pub(super) domain: Option<(Arc<str>, At)>,
    pub(super) descriptors: Vec<Descriptor>,
    pub(super) signs: Signs,
}

/// A node of the descriptor tree, as written.
pub(super) struct Descriptor {
    pub(super) at: At,
    /// Never empty; none: it is missing, and that has been said.
    pub(super) key: Option<Given<Arc<str>>>,
    /// Empty counts as left out.
    pub(super) value: Field<Arc<str>>,
    pub(super) limits: Vec<Limit>,
    /// True if limits were written, well or not.
    pub(super) has_limits: bool,
    pub(super) shadow_mode: Field<bool>,
    pub(super) quota_mode: Field<bool>,
    pub(super) detailed_metric: Field<bool>,
    pub(super) value_to_metric: Field<bool>,
    pub(super) share_threshold: Field<bool>,
    pub(super) sensitive: Field<bool>,
    pub(super) metadata: Option<Map<String, Value>>,
    pub(super) adaptive: Option<Given<Adaptive>>,
    pub(super) descriptors: Vec<Self>,
}

/// A limit, as written.
pub(super) struct Limit {
    pub(super) at: At,
    pub(super) unit: Field<Unit>,
    pub(super) unit_multiplier: Field<u32>,
    pub(super) requests_per_unit: Field<u32>,
    pub(super) unlimited: Field<bool>,
    pub(super) name: Field<Arc<str>>,
    /// Names are never empty.
    pub(super) replaces: Vec<(Arc<str>, At)>,
    pub(super) algorithm: Field<MethodName>,
    pub(super) burst: Field<u32>,
    pub(super) slots: Field<u32>,
    pub(super) charge: Field<ChargeName>,
    pub(super) max_debt: Field<u64>,
    pub(super) max_wait: Field<Duration>,
    pub(super) on_store_failure: Field<OnStoreFailure>,
    pub(super) lease: Option<Given<Lease>>,
    pub(super) calendar: Option<Given<Calendar>>,
    /// Of a concurrency limit.
    pub(super) max: Field<u32>,
    pub(super) ttl: Field<Duration>,
    pub(super) hold: Option<Given<Hold>>,
    pub(super) cost: Field<Cost>,
}

/// A calendar, as written.
pub(super) struct Calendar {
    pub(super) at: At,
    pub(super) unit: Field<Unit>,
    pub(super) zone: Field<Arc<str>>,
    pub(super) anchor_day: Field<u32>,
    pub(super) weekday: Field<WeekdayName>,
}

/// A lease, as written.
pub(super) struct Lease {
    pub(super) at: At,
    pub(super) max_share: Field<f64>,
    pub(super) ttl: Field<Duration>,
}

impl File {
    pub(super) fn read(node: &Node, report: &mut Report<'_>) -> Self {
        if node.is_null() {
            no_domain(node.at, report);
            return Self { domain: None, descriptors: Vec::new(), signs: Signs::default() };
        }
        let Some(fields) = Fields::open(node, &FILE, report) else {
            return Self { domain: None, descriptors: Vec::new(), signs: Signs::default() };
        };
        let domain = match fields.text("domain", report).0 {
            None => {
                no_domain(node.at, report);
                None
            }
            Some(Given { at, value: Some(name), .. }) if name.is_empty() => {
                report.fault(at, "domain is empty: \"\"");
                None
            }
            Some(Given { at, value, .. }) => value.map(|name| (name, at)),
        };
        let signs = Signs::read(&fields, report);
        Self { domain, descriptors: Descriptor::read_all(&fields, report), signs }
    }
}

fn no_domain(at: At, report: &mut Report<'_>) {
    report.fault_with(at, "domain is missing", "begin the file with \"domain: NAME\"".to_owned());
}

impl Descriptor {
    fn read_all(fields: &Fields<'_>, report: &mut Report<'_>) -> Vec<Self> {
        let items = fields.list("descriptors", report).good().unwrap_or_default();
        items.iter().filter_map(|node| Self::read(node, report)).collect()
    }

    fn read(node: &Node, report: &mut Report<'_>) -> Option<Self> {
        let fields = Fields::open(node, &DESCRIPTOR, report)?;
        let key = fields.text("key", report).0;
        match &key {
            None => report.fault(node.at, "key is missing or empty in a descriptor"),
            Some(Given { at, value: Some(key), .. }) if key.is_empty() => {
                report.fault(*at, "key is empty: \"\"");
            }
            Some(_) => {}
        }
        let value = fields.text("value", report).0;
        Some(Self {
            at: node.at,
            key: key.filter(|key| key.value.as_ref().is_some_and(|key| !key.is_empty())),
            value: Field(value.filter(|given| given.value.as_deref() != Some(""))),
            limits: Limit::read_all(&fields, report),
            has_limits: ["rate_limit", "rate_limits"].iter().any(|key| fields.get(key).is_some()),
            shadow_mode: fields.flag("shadow_mode", report),
            quota_mode: fields.flag("quota_mode", report),
            detailed_metric: fields.flag("detailed_metric", report),
            value_to_metric: fields.flag("value_to_metric", report),
            share_threshold: fields.flag("share_threshold", report),
            sensitive: fields.flag("sensitive", report),
            metadata: metadata(&fields, report),
            adaptive: Adaptive::read(&fields, report),
            descriptors: Self::read_all(&fields, report),
        })
    }
}

fn metadata(fields: &Fields<'_>, report: &mut Report<'_>) -> Option<Map<String, Value>> {
    let node = &fields.get("metadata")?.value;
    let Data::Map(entries) = &node.data else {
        report.fault(node.at, format!("metadata must be a mapping, found {}", node.describe()));
        return None;
    };
    if let Some(deep) = node.below(MAX_METADATA_LEVELS) {
        let fault = format!("metadata may be nested {MAX_METADATA_LEVELS} levels deep, no deeper");
        report.lenient_fault(deep.at, fault, None);
        return None;
    }
    let metadata = to_object(entries);
    let bytes = serde_json::to_vec(&metadata).map_or(usize::MAX, |text| text.len());
    if bytes > MAX_METADATA_BYTES {
        let fault = format!("metadata has {bytes} bytes as JSON, at most {MAX_METADATA_BYTES}");
        report.lenient_fault(node.at, fault, None);
        return None;
    }
    Some(metadata)
}

impl Limit {
    /// The limit of `rate_limit`, or those of `rate_limits`.
    fn read_all(fields: &Fields<'_>, report: &mut Report<'_>) -> Vec<Self> {
        let one = fields.get("rate_limit");
        let several = fields.list("rate_limits", report).0;
        if let (Some(_), Some(several)) = (one, &several) {
            let hint = "move the limit of rate_limit into rate_limits".to_owned();
            let message = "rate_limits beside rate_limit in one descriptor";
            report.fault_with(several.key_at, message, hint);
        }
        if let Some(Given { at, value: Some([]), .. }) = several {
            let hint = "leave rate_limits out where there is no limit".to_owned();
            report.fault_with(at, "rate_limits is empty: []", hint);
        }
        let several = several.and_then(|several| several.value).unwrap_or_default();
        let nodes = one.map(|entry| &entry.value).into_iter().chain(several);
        nodes.filter_map(|node| Self::read(node, report)).collect()
    }

    fn read(node: &Node, report: &mut Report<'_>) -> Option<Self> {
        let fields = Fields::open(node, &LIMIT, report)?;
        Some(Self {
            at: node.at,
            unit: fields.word("unit", report),
            unit_multiplier: fields.count("unit_multiplier", report),
            requests_per_unit: fields.count("requests_per_unit", report),
            unlimited: fields.flag("unlimited", report),
            name: fields.text("name", report),
            replaces: Self::replaces(&fields, report),
            algorithm: fields.word("algorithm", report),
            burst: fields.count("burst", report),
            slots: fields.count("slots", report),
            charge: fields.word("charge", report),
            max_debt: fields.whole("max_debt", SATURATION, report),
            max_wait: fields.time("max_wait", report),
            on_store_failure: fields.word("on_store_failure", report),
            lease: Lease::read(&fields, report),
            calendar: Calendar::read(&fields, report),
            max: fields.count("max", report),
            ttl: fields.time("ttl", report),
            hold: Hold::read(&fields, report),
            cost: fields.cost(report),
        })
    }

    fn replaces(fields: &Fields<'_>, report: &mut Report<'_>) -> Vec<(Arc<str>, At)> {
        let mut names = Vec::new();
        for node in fields.list("replaces", report).good().unwrap_or_default() {
            let Some(fields) = Fields::open(node, &REPLACES, report) else { continue };
            match fields.text("name", report).0 {
                Some(Given { value: None, .. }) => {}
                Some(Given { at, value: Some(name), .. }) if !name.is_empty() => {
                    names.push((name, at));
                }
                None | Some(_) => report.fault(node.at, "an entry of replaces without a name"),
            }
        }
        names
    }
}

impl Calendar {
    /// The calendar of a limit; none: there is none.
    fn read(limit: &Fields<'_>, report: &mut Report<'_>) -> Option<Given<Self>> {
        let Entry { key_at, value: node, .. } = limit.get("calendar")?;
        let calendar = Fields::open(node, &CALENDAR, report).map(|fields| Self {
            at: node.at,
            unit: fields.word("unit", report),
            zone: fields.text("zone", report),
            anchor_day: fields.count("anchor_day", report),
            weekday: fields.word("weekday", report),
        });
        Some(Given { key_at: *key_at, at: node.at, value: calendar })
    }
}

impl Lease {
    /// The lease of a limit; none: there is none.
    fn read(limit: &Fields<'_>, report: &mut Report<'_>) -> Option<Given<Self>> {
        let Entry { key_at, value: node, .. } = limit.get("lease")?;
        let lease = Fields::open(node, &LEASE, report).map(|fields| Self {
            at: node.at,
            max_share: fields.number("max_share", report),
            ttl: fields.time("ttl", report),
        });
        Some(Given { key_at: *key_at, at: node.at, value: lease })
    }
}
